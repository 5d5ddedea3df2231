//! What user space fixes before loading: frozen `.rodata`, which the verifier folds into constants.

use core::ptr::{addr_of, read_volatile};

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
    /// 1: faults of the probes go to the terminal.
    DEBUG_PROBES => debug_probes;
}
