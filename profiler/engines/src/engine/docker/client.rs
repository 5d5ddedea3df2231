//! The daemon's API, with waits that a signal ends.

use std::{collections::HashMap, rc::Rc, time::Duration};

use bollard::{
    errors::Error as ApiError,
    query_parameters::{
        ListContainersOptionsBuilder, ListImagesOptionsBuilder, ListNetworksOptionsBuilder,
        RemoveContainerOptionsBuilder, RemoveImageOptionsBuilder,
    },
};
use futures_util::future::{Either, select};

use super::{LABEL, NAME};
use crate::ledger::Item;
use virtax_model::error::{Error, Result};
use virtax_probes::interrupt;

/// Longest wait for an answer: an image takes a second, a container's start a few.
const TIMEOUT: Duration = Duration::from_secs(30);

/// A connection to the daemon.
#[derive(Clone)]
pub struct Client {
    pub(super) api: bollard::Docker,
    // One runtime for all calls: the connection's own tasks live in it.
    runtime: Rc<tokio::runtime::Runtime>,
}

/// How long a daemon may go on making something after a signal.
const PATIENCE: Duration = Duration::from_secs(10);

impl Client {
    /// Connects to the daemon that `DOCKER_HOST` names, or the local one. Never starts one.
    ///
    /// # Errors
    /// If it does not answer.
    pub fn connect() -> Result<Self> {
        let refuse = |error: &dyn std::fmt::Display| {
            Error::engine(
                "cannot reach the Docker daemon",
                error,
                "start it (systemctl start docker, or dockerd), or set DOCKER_HOST",
            )
        };
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| refuse(&error))?;
        let api = runtime.block_on(async {
            bollard::Docker::connect_with_defaults()
                .map_err(|error| refuse(&error))?
                .with_timeout(TIMEOUT)
                .negotiate_version()
                .await
                .map_err(|error| refuse(&error))
        })?;
        Ok(Self { api, runtime: Rc::new(runtime) })
    }

    /// Waits for an answer; a signal ends the wait.
    pub(super) fn ask<T>(
        &self,
        what: &str,
        request: impl Future<Output = std::result::Result<T, ApiError>>,
    ) -> Result<T> {
        let interrupted = async {
            while interrupt::check().is_ok() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let answer = self.runtime.block_on(async {
            match select(std::pin::pin!(request), std::pin::pin!(interrupted)).await {
                Either::Left((answer, _)) => Some(answer),
                Either::Right(_) => None,
            }
        });
        answer.ok_or(Error::Interrupted)?.map_err(|error| refusal(what, &error))
    }

    /// Has something made, and waits for it: a signal ends the wait only after [`PATIENCE`], because the daemon goes on
    /// making what nobody waits for, and what is not there yet cannot be removed.
    pub(super) fn make<T>(
        &self,
        what: &str,
        request: impl Future<Output = std::result::Result<T, ApiError>>,
    ) -> Result<T> {
        let mut request = std::pin::pin!(request);
        match self.ask(what, &mut request) {
            Err(Error::Interrupted) => {
                // A timer is made inside of the runtime.
                let _ = self.runtime.block_on(async { tokio::time::timeout(PATIENCE, request).await });
                Err(Error::Interrupted)
            }
            answer => answer,
        }
    }

    /// Waits for an answer, signals or not: for removing things. What is gone already is no error.
    fn remove<T>(&self, what: &str, request: impl Future<Output = std::result::Result<T, ApiError>>) -> Result<()> {
        match self.runtime.block_on(request) {
            Ok(_) | Err(ApiError::DockerResponseServerError { status_code: 404, .. }) => Ok(()),
            // Its own removal is under way.
            Err(ApiError::DockerResponseServerError { status_code: 409, message })
                if message.contains("already in progress") =>
            {
                Ok(())
            }
            Err(error) => Err(refusal(what, &error)),
        }
    }

    pub(super) fn remove_container(&self, name: &str) -> Result<()> {
        let options = RemoveContainerOptionsBuilder::default().force(true).v(true).build();
        self.remove(&format!("cannot remove container {name}"), self.api.remove_container(name, Some(options)))
    }
    pub(super) fn remove_network(&self, name: &str) -> Result<()> {
        self.remove(&format!("cannot remove network {name}"), self.api.remove_network(name))
    }
    pub(super) fn remove_image(&self, name: &str) -> Result<()> {
        let options = RemoveImageOptionsBuilder::default().force(true).build();
        self.remove(&format!("cannot remove image {name}"), self.api.remove_image(name, Some(options), None))
    }

    /// Whether the daemon answers.
    ///
    /// # Errors
    /// If it does not.
    pub(super) fn is_there(&self) -> Result<()> {
        self.ask("cannot reach the Docker daemon any more", self.api.ping()).map(drop)
    }

    /// The daemon's version.
    ///
    /// # Errors
    /// If it does not answer.
    pub fn version(&self) -> Result<String> {
        let version = self.ask("cannot ask Docker's version", self.api.version())?;
        Ok(version.version.unwrap_or_else(|| "of unknown version".to_owned()))
    }

    /// Objects that carry a run's label, with the run's id: what a ledger may have missed.
    ///
    /// # Errors
    /// If the daemon does not answer.
    pub fn labelled(&self) -> Result<Vec<(String, Item)>> {
        let filters = HashMap::from([("label".to_owned(), vec![LABEL.to_owned()])]);
        let run_of = |labels: Option<HashMap<String, String>>| labels.and_then(|mut labels| labels.remove(LABEL));
        let what = "cannot list Docker's objects";
        let containers = ListContainersOptionsBuilder::default().all(true).filters(&filters).build();
        let networks = ListNetworksOptionsBuilder::default().filters(&filters).build();
        let images = ListImagesOptionsBuilder::default().all(true).filters(&filters).build();
        let mut items = Vec::new();
        for container in self.ask(what, self.api.list_containers(Some(containers)))? {
            if let (Some(run_id), Some(name)) = (run_of(container.labels), container.id) {
                items.push((run_id, Item::Container { engine: NAME.to_owned(), name }));
            }
        }
        for network in self.ask(what, self.api.list_networks(Some(networks)))? {
            if let (Some(run_id), Some(name)) = (run_of(network.labels), network.name) {
                items.push((run_id, Item::Network { engine: NAME.to_owned(), name }));
            }
        }
        for image in self.ask(what, self.api.list_images(Some(images)))? {
            if let Some(run_id) = run_of(Some(image.labels)) {
                items.push((run_id, Item::Image { engine: NAME.to_owned(), name: image.id }));
            }
        }
        Ok(items)
    }
}

fn refusal(what: &str, error: &ApiError) -> Error {
    Error::engine(what, error, "see the daemon's log; `virtax doctor` checks the set-up")
}
