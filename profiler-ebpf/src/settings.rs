//! What user space fixes before loading: frozen `.rodata`, which the verifier folds into constants.

use core::ptr::{addr_of, read_volatile};

pub use profiler_common::NO_FIELD;

macro_rules! settings {
    ($($(#[$doc:meta])* $symbol:ident => $getter:ident;)*) => { $(
        $(#[$doc])*
        #[unsafe(no_mangle)]
        static $symbol: u32 = 0;
        $(#[$doc])*
        #[inline(always)]
        pub fn $getter() -> u32 {
            // Volatile, or the compiler would fold the 0 above before user space has set the value.
            unsafe { read_volatile(addr_of!($symbol)) }
        }
    )* };
}
settings! {
    /// Offset of `sk_buff.sk`.
    SKB_SK => skb_sk;
    /// Offset of `sk_buff.dev`.
    SKB_DEV => skb_dev;
    /// Offset of `sk_buff.len`.
    SKB_LEN => skb_len;
    /// Offset of `sk_buff.data_len`.
    SKB_DATA_LEN => skb_data_len;
    /// Offset of `sk_buff.head`.
    SKB_HEAD => skb_head;
    /// Offset of `sk_buff.data`.
    SKB_DATA => skb_data;
    /// Offset of `sk_buff.transport_header`.
    SKB_TRANSPORT => skb_transport;
    /// Offset of `sock.sk_lock.owned`.
    SOCK_OWNED => sock_owned;
    /// Offset of `sock.sk_protocol`.
    SOCK_PROTOCOL => sock_protocol;
    /// Offset of `net_device.name`.
    DEV_NAME => dev_name;
    /// Offset of `net_device.ifindex`.
    DEV_IFINDEX => dev_ifindex;
    /// Offset of `net_device.nd_net.net`.
    DEV_NET => dev_net;
    /// Offset of `net.ns.inum`.
    NET_INUM => net_inum;
    /// Offset of `task_struct.pid`.
    TASK_PID => task_pid;
    /// Offset of `task_struct.tgid`.
    TASK_TGID => task_tgid;
    /// Offset of `task_struct.__state`.
    TASK_STATE => task_state;
    /// Offset of `task_struct.throttled` (since 6.18); [`NO_FIELD`]: there is none.
    TASK_THROTTLED => task_throttled;
    /// Offset of `task_struct.se.cfs_rq`; [`NO_FIELD`]: there is none.
    TASK_CFS_RQ => task_cfs_rq;
    /// Offset of `cfs_rq.throttle_count`; [`NO_FIELD`]: there is none.
    CFS_RQ_THROTTLED => cfs_rq_throttled;
    /// 1: faults of the probes go to the terminal.
    DEBUG_PROBES => debug_probes;
}
