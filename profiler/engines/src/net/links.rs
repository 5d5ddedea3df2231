//! Links and addresses, by rtnetlink.

use std::{fs::File, net::Ipv4Addr, os::fd::AsRawFd};

use futures_util::TryStreamExt;
use rtnetlink::{
    Handle, LinkBridge, LinkUnspec, LinkVeth, RouteMessageBuilder, new_connection, packet_route::link::LinkAttribute,
};

use virtax_model::error::{Error, Result};

const REMEDY: &str = "run as root, or with CAP_NET_ADMIN";

/// Runs netlink requests in the namespace of the calling thread.
fn netlink<T, F>(what: &str, requests: impl FnOnce(Handle) -> F) -> Result<T>
where
    F: Future<Output = std::result::Result<T, rtnetlink::Error>>,
{
    let refuse = |error: &dyn std::fmt::Display| Error::unsupported(format!("cannot {what}"), error, REMEDY);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| refuse(&error))?;
    runtime.block_on(async {
        let (connection, handle, _) = new_connection().map_err(|error| refuse(&error))?;
        tokio::spawn(connection);
        requests(handle).await.map_err(|error| refuse(&error))
    })
}

async fn index_of(handle: &Handle, name: &str) -> std::result::Result<u32, rtnetlink::Error> {
    let mut links = handle.link().get().match_name(name.to_owned()).execute();
    match links.try_next().await? {
        Some(link) => Ok(link.header.index),
        None => Err(rtnetlink::Error::RequestFailed),
    }
}

/// Makes a pair of links, the second in another namespace.
pub(crate) fn create_veth(here: &str, there: &str, namespace: &File) -> Result<()> {
    let fd = namespace.as_raw_fd();
    netlink(&format!("create links {here} and {there}"), async |handle| {
        handle.link().add(LinkVeth::new(here, there).build()).execute().await?;
        let index = index_of(&handle, there).await?;
        let message = LinkUnspec::new_with_index(index).setns_by_fd(fd).build();
        handle.link().set(message).execute().await
    })
}

/// Makes a pair of links in this namespace.
pub(crate) fn create_veth_here(one: &str, other: &str) -> Result<()> {
    netlink(&format!("create links {one} and {other}"), async |handle| {
        handle.link().add(LinkVeth::new(one, other).build()).execute().await
    })
}

/// Moves a link of this namespace into another.
pub(crate) fn move_to(name: &str, namespace: &File) -> Result<()> {
    let fd = namespace.as_raw_fd();
    netlink(&format!("move link {name}"), async |handle| {
        let index = index_of(&handle, name).await?;
        handle.link().set(LinkUnspec::new_with_index(index).setns_by_fd(fd).build()).execute().await
    })
}

/// Gives a link of this namespace, which is down, another name.
pub(crate) fn rename(name: &str, new: &str) -> Result<()> {
    netlink(&format!("rename link {name}"), async |handle| {
        let index = index_of(&handle, name).await?;
        handle.link().set(LinkUnspec::new_with_index(index).name(new.to_owned()).build()).execute().await
    })
}

/// Makes a bridge in this namespace, without the delay that a port usually waits before it forwards.
pub(crate) fn create_bridge(name: &str) -> Result<()> {
    netlink(&format!("create bridge {name}"), async |handle| {
        handle.link().add(LinkBridge::new(name).forward_delay(0).build()).execute().await
    })
}

/// Makes a link of this namespace a port of a bridge.
pub(crate) fn add_port(bridge: &str, link: &str) -> Result<()> {
    netlink(&format!("add link {link} to bridge {bridge}"), async |handle| {
        let (bridge, link) = (index_of(&handle, bridge).await?, index_of(&handle, link).await?);
        handle.link().set(LinkUnspec::new_with_index(link).controller(bridge).build()).execute().await
    })
}

/// Gives a link of this namespace an address and takes it up.
pub(crate) fn bring_up(name: &str, address: Option<(Ipv4Addr, u8)>) -> Result<()> {
    netlink(&format!("bring up link {name}"), async |handle| {
        let index = index_of(&handle, name).await?;
        if let Some((address, prefix)) = address {
            handle.address().add(index, address.into(), prefix).execute().await?;
        }
        handle.link().set(LinkUnspec::new_with_index(index).up().build()).execute().await
    })
}

/// Routes a network through a gateway, in this namespace.
pub(crate) fn add_route(network: Ipv4Addr, prefix: u8, gateway: Ipv4Addr) -> Result<()> {
    netlink(&format!("route {network}/{prefix} through {gateway}"), async |handle| {
        let route = RouteMessageBuilder::<Ipv4Addr>::new().destination_prefix(network, prefix).gateway(gateway).build();
        handle.route().add(route).execute().await
    })
}

/// Removes a link of the host; one that is gone is no error.
///
/// # Errors
/// If it is still there afterwards.
pub fn delete_link(name: &str) -> Result<()> {
    if !links_here()?.iter().any(|link| link == name) {
        return Ok(());
    }
    netlink(&format!("remove link {name}"), async |handle| {
        let index = index_of(&handle, name).await?;
        handle.link().del(index).execute().await
    })
}

/// Names of all links in this namespace.
///
/// # Errors
/// If they cannot be listed.
pub fn links_here() -> Result<Vec<String>> {
    netlink("list links", async |handle| {
        let mut links = handle.link().get().execute();
        let mut names = Vec::new();
        while let Some(link) = links.try_next().await? {
            names.extend(link.attributes.into_iter().find_map(|attribute| {
                let LinkAttribute::IfName(name) = attribute else { return None };
                Some(name)
            }));
        }
        Ok(names)
    })
}
