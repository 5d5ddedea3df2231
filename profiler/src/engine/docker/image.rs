//! The image: one static binary in a tar, imported without a registry.

use std::fs;

use bollard::query_parameters::CreateImageOptionsBuilder;
use bytes::Bytes;
use futures_util::TryStreamExt;

use super::{Client, LABEL};
use crate::{
    engine::Bench,
    error::{Error, Result},
    ledger::{Item, Lease},
};

/// Where the binary lies in the image.
pub(super) const BINARY: &str = "/virtax-workload";

/// An image of the run.
pub(super) struct Image {
    pub name: String,
    _lease: Lease,
}

fn archive(bench: &Bench) -> Result<Vec<u8>> {
    let fail = |error| Error::file("pack", &bench.binary, error);
    let binary = fs::read(&bench.binary).map_err(fail)?;
    let mut header = tar::Header::new_gnu();
    header.set_size(binary.len() as u64);
    header.set_mode(0o755);
    header.set_mtime(0);
    let mut archive = tar::Builder::new(Vec::new());
    archive.append_data(&mut header, BINARY.trim_start_matches('/'), binary.as_slice()).map_err(fail)?;
    archive.into_inner().map_err(fail)
}

pub(super) fn make(client: &Client, bench: &Bench) -> Result<Image> {
    let repository = format!("virtax-{}", bench.run_id);
    let name = format!("{repository}:latest");
    let tar = archive(bench)?;
    let lease = bench.ledger.note(Item::Image { name: name.clone() })?;
    let options = CreateImageOptionsBuilder::default()
        .from_src("-")
        .repo(&repository)
        .tag("latest")
        .changes([format!("LABEL {LABEL}={}", bench.run_id)].to_vec())
        .build();
    let body = bollard::body_full(Bytes::from(tar));
    client.ask("cannot import the image", async {
        client.api.create_image(Some(options), Some(body), None).try_collect::<Vec<_>>().await
    })?;
    Ok(Image { name, _lease: lease })
}
