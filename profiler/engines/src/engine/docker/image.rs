//! The image: the server's program and files in a tar, imported without a registry.

use std::path::Path;

use bollard::query_parameters::CreateImageOptionsBuilder;
use bytes::Bytes;
use futures_util::TryStreamExt;

use super::{Client, KEEPER, LABEL, NAME};
use crate::{
    engine::Bench,
    ledger::{Item, Lease},
};
use virtax_model::error::Result;

/// An image of the run.
pub(super) struct Image {
    pub name: String,
    _lease: Lease,
}

pub(super) fn make(client: &Client, bench: &Bench) -> Result<Image> {
    let repository = format!("virtax-{}", bench.run_id);
    let name = format!("{repository}:latest");
    let mut tar = Vec::new();
    let mut pack = bench.server.pack.clone();
    pack.add_copy(Path::new(KEEPER), &bench.binary, 0o755);
    pack.write_tar(&mut tar)?;
    let lease = bench.ledger.note(Item::Image { engine: NAME.to_owned(), name: name.clone() })?;
    let options = CreateImageOptionsBuilder::default()
        .from_src("-")
        .repo(&repository)
        .tag("latest")
        .changes([format!("LABEL {LABEL}={}", bench.run_id)].to_vec())
        .build();
    let body = bollard::body_full(Bytes::from(tar));
    client.make("cannot import the image", async {
        client.api.create_image(Some(options), Some(body), None).try_collect::<Vec<_>>().await
    })?;
    Ok(Image { name, _lease: lease })
}
