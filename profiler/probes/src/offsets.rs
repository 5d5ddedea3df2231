//! Offsets of kernel structures' fields, from the running kernel's BTF.

use std::path::Path;

use btf_rs::{Btf, Type};

use virtax_model::error::{Error, Result};

const BTF: &str = "/sys/kernel/btf/vmlinux";
/// Types of the module, where loop devices are one, and it is loaded.
const LOOP_BTF: &str = "/sys/kernel/btf/loop";

/// The probes' settings: the symbol in their object, the structure, and the path of the field in it.
const FIELDS: &[(&str, &str, &str)] = &[
    ("SKB_SK", "sk_buff", "sk"),
    ("SKB_DEV", "sk_buff", "dev"),
    ("SKB_LEN", "sk_buff", "len"),
    ("SKB_DATA_LEN", "sk_buff", "data_len"),
    ("SKB_HEAD", "sk_buff", "head"),
    ("SKB_DATA", "sk_buff", "data"),
    ("SKB_TRANSPORT", "sk_buff", "transport_header"),
    ("SKB_NETWORK", "sk_buff", "network_header"),
    ("SOCK_OWNED", "sock", "sk_lock.owned"),
    ("SOCK_PROTOCOL", "sock", "sk_protocol"),
    ("SOCK_PORT", "sock", "__sk_common.skc_num"),
    ("DEV_NAME", "net_device", "name"),
    ("DEV_IFINDEX", "net_device", "ifindex"),
    ("DEV_NET", "net_device", "nd_net.net"),
    ("NET_INUM", "net", "ns.inum"),
    ("BIO_NEXT", "bio", "bi_next"),
    ("BIO_SIZE", "bio", "bi_iter.bi_size"),
    ("BIO_SECTOR", "bio", "bi_iter.bi_sector"),
    ("BIO_PRIVATE", "bio", "bi_private"),
    ("BIO_BDEV", "bio", "bi_bdev"),
    ("BIO_STATUS", "bio", "bi_status"),
    ("BDEV_DISK", "block_device", "bd_disk"),
    ("DISK_NAME", "gendisk", "disk_name"),
    ("DISK_MAJOR", "gendisk", "major"),
    ("DISK_MINOR", "gendisk", "first_minor"),
    ("REQUEST_BIO", "request", "bio"),
    ("INODE_NUMBER", "inode", "i_ino"),
    ("INODE_MODE", "inode", "i_mode"),
    ("TASK_PID", "task_struct", "pid"),
    ("TASK_TGID", "task_struct", "tgid"),
    ("TASK_STATE", "task_struct", "__state"),
];

/// Fields that some kernels lack, which costs a distinction and nothing else.
const OPTIONAL: &[(&str, &str, &str)] = &[
    ("TASK_THROTTLED", "task_struct", "throttled"),
    ("TASK_CFS_RQ", "task_struct", "se.cfs_rq"),
    ("CFS_RQ_THROTTLED", "cfs_rq", "throttle_count"),
    ("DIO_IOCB", "iomap_dio", "iocb"),
    ("DIO_WAITER", "iomap_dio", "submit.waiter"),
    ("RING_REQUEST_CTX", "io_kiocb", "ctx"),
    ("RING_REQUEST_DATA", "io_kiocb", "cqe.user_data"),
    ("TCP_NEXT", "tcp_sock", "snd_nxt"),
    ("TCP_CONGESTION", "inet_connection_sock", "icsk_ca_state"),
    ("TCP_PENDING", "inet_connection_sock", "icsk_pending"),
    ("DISK_OPERATIONS", "gendisk", "fops"),
    ("OPERATIONS_SUBMIT", "block_device_operations", "submit_bio"),
    ("MAPPING_HOST", "address_space", "host"),
    ("KIOCB_IOCB", "aio_kiocb", "ki_res.obj"),
    // Elsewhere, asynchronous calls are not followed.
    #[cfg(target_arch = "x86_64")]
    ("REGISTERS_SECOND", "pt_regs", "si"),
    #[cfg(target_arch = "x86_64")]
    ("REGISTERS_THIRD", "pt_regs", "dx"),
    #[cfg(target_arch = "x86_64")]
    ("REGISTERS_FOURTH", "pt_regs", "r10"),
];

/// Types of the module, where overlayfs is one, and it is loaded.
const OVERLAY_BTF: &str = "/sys/kernel/btf/overlay";

/// Offsets of all fields that the probes read, in bytes.
#[derive(Debug, Clone)]
pub struct Offsets(Vec<(&'static str, u32)>);

impl Offsets {
    /// Reads them from the running kernel.
    ///
    /// # Errors
    /// If the kernel has no BTF, or lacks a field.
    pub fn of_running_kernel() -> Result<Self> {
        Self::from_file(Path::new(BTF))
    }

    fn from_file(path: &Path) -> Result<Self> {
        let refuse = |error: &dyn std::fmt::Display| {
            let what = format!("cannot read {}", path.display());
            Error::unsupported(what, error, "use a kernel with CONFIG_DEBUG_INFO_BTF")
        };
        // Whole: by the library's own reader, it would be a hundred thousand seeks, seconds on an emulated processor.
        let bytes = std::fs::read(path).map_err(|error| refuse(&error))?;
        let btf = Btf::from_bytes(&bytes).map_err(|error| refuse(&error))?;
        FIELDS
            .iter()
            .map(|(symbol, structure, field)| {
                let offset = offset(&btf, structure, field).ok_or_else(|| {
                    Error::unsupported(
                        format!("the kernel's {structure} has no field {field}"),
                        "its layout differs from every kernel known to this version",
                        "report the kernel's version",
                    )
                })?;
                Ok((*symbol, offset))
            })
            .chain(std::iter::once(Ok(("LOOP_IOCB", loop_iocb(&btf).unwrap_or(profiler_common::NO_FIELD)))))
            .chain(std::iter::once(Ok(("OVER_IOCB", over_iocb(&btf).unwrap_or(profiler_common::NO_FIELD)))))
            .chain(OPTIONAL.iter().map(|(symbol, structure, field)| {
                Ok((*symbol, offset(&btf, structure, field).unwrap_or(profiler_common::NO_FIELD)))
            }))
            .collect::<Result<_>>()
            .map(Self)
    }

    /// `(symbol, offset)`.
    pub fn iter(&self) -> impl Iterator<Item = &(&'static str, u32)> {
        self.0.iter()
    }
}

fn offset(btf: &Btf, structure: &str, path: &str) -> Option<u32> {
    btf.resolve_types_by_name(structure).ok()?.iter().find_map(|found| path_offset(btf, found, path))
}

/// How far behind a request a loop device has its iocb: as the kernel, or its module, says.
fn loop_iocb(btf: &Btf) -> Option<u32> {
    let (part, field) = ("loop_cmd", "iocb");
    behind_request(btf, offset(btf, part, field).or_else(|| offset_in_module(btf, LOOP_BTF, part, field))?)
}

/// Where the iocb that a file system makes for the one below it has the one that it is made for: since 6.7 in the
/// kernel's own (`fs/backing-file.c`), before in overlayfs'.
fn over_iocb(btf: &Btf) -> Option<u32> {
    let (part, field) = ("ovl_aio_req", "orig_iocb");
    offset(btf, "backing_aio", field)
        .or_else(|| offset(btf, part, field))
        .or_else(|| offset_in_module(btf, OVERLAY_BTF, part, field))
}

fn offset_in_module(btf: &Btf, path: &str, structure: &str, field: &str) -> Option<u32> {
    let module = Btf::from_split_bytes(&std::fs::read(path).ok()?, btf).ok()?;
    offset(&module, structure, field)
}

/// How far behind the beginning of a request a field of its driver's own part lies, which follows it
/// (`blk_mq_rq_to_pdu`).
#[allow(clippy::wildcard_enum_match_arm, reason = "an enum of another crate's")]
fn behind_request(btf: &Btf, offset: u32) -> Option<u32> {
    let requests = btf.resolve_types_by_name("request").ok()?;
    let size = requests.iter().find_map(|found| match found {
        Type::Struct(request) => Some(request.size() as u32),
        _ => None,
    })?;
    Some(size + offset)
}

/// Follows `a.b.c` through named members.
fn path_offset(btf: &Btf, structure: &Type, path: &str) -> Option<u32> {
    let (field, rest) = match path.split_once('.') {
        Some((field, rest)) => (field, Some(rest)),
        None => (path, None),
    };
    let (offset, inner) = member(btf, structure, field)?;
    match rest {
        None => Some(offset),
        Some(rest) => Some(offset + path_offset(btf, &inner?, rest)?),
    }
}

/// Offset and type of a member, also one inside anonymous structures and unions.
fn member(btf: &Btf, structure: &Type, field: &str) -> Option<(u32, Option<Type>)> {
    let (Type::Struct(members) | Type::Union(members)) = structure else {
        return None;
    };
    members.members.iter().find_map(|member_| {
        let name = btf.resolve_name(member_).unwrap_or_default();
        let here = member_.bit_offset() / 8;
        if name == field {
            return Some((here, resolved(btf, member_)));
        }
        if !name.is_empty() {
            return None;
        }
        let inner = resolved(btf, member_)?;
        member(btf, &inner, field).map(|(offset, found)| (here + offset, found))
    })
}

/// The member's type behind typedefs and qualifiers.
#[allow(clippy::wildcard_enum_match_arm, reason = "an enum of another crate's")]
fn resolved(btf: &Btf, member: &dyn btf_rs::BtfType) -> Option<Type> {
    let mut found = btf.resolve_chained_type(member).ok()?;
    for _ in 0..8 {
        match &found {
            Type::Typedef(_) | Type::Const(_) | Type::Volatile(_) | Type::TypeTag(_) => {
                found = btf.resolve_chained_type(found.as_btf_type()?).ok()?;
            }
            _ => return Some(found),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_file_names_the_remedy() {
        let error = Offsets::from_file(Path::new("/nonexistent/btf")).unwrap_err();
        assert!(error.to_string().contains("CONFIG_DEBUG_INFO_BTF"));
        assert_eq!(error.exit_code(), 3);
    }

    /// BTF can be read without root wherever the kernel has it.
    #[test]
    fn the_running_kernel_has_every_field() {
        if !Path::new(BTF).exists() {
            assert!(std::env::var_os("VIRTAX_NO_SKIP").is_none(), "this kernel has no {BTF}");
            return;
        }
        let offsets = Offsets::of_running_kernel().unwrap();
        assert_eq!(offsets.iter().count(), FIELDS.len() + OPTIONAL.len() + 2);
        let of = |symbol| offsets.iter().find(|(name, _)| *name == symbol).unwrap().1;
        // The thread-group id follows the thread id, a 32-bit number, in every kernel.
        assert_eq!(of("TASK_TGID"), of("TASK_PID") + 4);
        assert_ne!(of("SKB_SK"), of("SKB_DEV"));
    }
}
