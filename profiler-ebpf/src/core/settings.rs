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
            // SAFETY: a static.
            unsafe { read_volatile(addr_of!($symbol)) }
        }
    )* };
}
settings! {
    /// 64 less the binary logarithm of the places that stages have by their keys.
    STAGES_SHIFT => stages_shift;
    /// Those places less one: a power of two less one.
    STAGES_MASK => stages_mask;
    /// All places for stages, those included for such as find theirs taken.
    STAGES_MOST => stages_most;
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
    /// Offset of `sk_buff.network_header`.
    SKB_NETWORK => skb_network;
    /// Offset of `sock.sk_lock.owned`.
    SOCK_OWNED => sock_owned;
    /// Offset of `sock.sk_protocol`.
    SOCK_PROTOCOL => sock_protocol;
    /// Offset of `sock.__sk_common.skc_num`: the socket's own port.
    SOCK_PORT => sock_port;
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
    /// Offset of `bio.bi_next`.
    BIO_NEXT => bio_next;
    /// Offset of `bio.bi_iter.bi_size`.
    BIO_SIZE => bio_size;
    /// Offset of `bio.bi_iter.bi_sector`.
    BIO_SECTOR => bio_sector;
    /// Offset of `bio.bi_private`.
    BIO_PRIVATE => bio_private;
    /// Offset of `bio.bi_bdev`.
    BIO_BDEV => bio_bdev;
    /// Offset of `bio.bi_status`.
    BIO_STATUS => bio_status;
    /// Offset of `block_device.bd_disk`.
    BDEV_DISK => bdev_disk;
    /// Offset of `gendisk.disk_name`.
    DISK_NAME => disk_name;
    /// Offset of `gendisk.major`.
    DISK_MAJOR => disk_major;
    /// Offset of `gendisk.first_minor`.
    DISK_MINOR => disk_minor;
    /// Offset of `gendisk.fops`.
    DISK_OPERATIONS => disk_operations;
    /// Offset of `block_device_operations.submit_bio` (since 5.9), of disks that take bios as they are; [`NO_FIELD`]:
    /// there is none.
    OPERATIONS_SUBMIT => operations_submit;
    /// Offset of the register of a system call's second argument in `pt_regs`; [`NO_FIELD`]: not known.
    REGISTERS_SECOND => registers_second;
    /// The third's.
    REGISTERS_THIRD => registers_third;
    /// The fourth's.
    REGISTERS_FOURTH => registers_fourth;
    /// Offset of `aio_kiocb.ki_res.obj`: what its program calls it; [`NO_FIELD`]: there is none.
    KIOCB_IOCB => kiocb_iocb;
    /// How far behind its request a loop device has its iocb (`loop_cmd.iocb`); [`NO_FIELD`]: it has none.
    LOOP_IOCB => loop_iocb;
    /// Offset of `iomap_dio.iocb`; [`NO_FIELD`]: there is none.
    DIO_IOCB => dio_iocb;
    /// Offset of `backing_aio.orig_iocb`, or in older kernels of overlayfs' own `ovl_aio_req.orig_iocb`;
    /// [`NO_FIELD`]: there is none.
    OVER_IOCB => over_iocb;
    /// Offset of `inode.i_ino`.
    INODE_NUMBER => inode_number;
    /// Offset of `inode.i_mode`.
    INODE_MODE => inode_mode;
    /// Offset of `address_space.host`; [`NO_FIELD`]: there is none.
    MAPPING_HOST => mapping_host;
    /// Offset of `request.bio`.
    REQUEST_BIO => request_bio;
    /// Offset of `skbaddr` in the record of `net_dev_start_xmit`.
    XMIT_SKBADDR => xmit_skbaddr;
    /// Offset of `skbaddr` in the record of `netif_receive_skb`.
    RECEIVE_SKBADDR => receive_skbaddr;
    /// Offset of `skaddr` in the record of `sk_data_ready`.
    READY_SKADDR => ready_skaddr;
    /// Offset of `sk` in the record of `sock_recv_length`.
    RECEIVED_SK => received_sk;
    /// Offset of `ret` in the record of `sock_recv_length`.
    RECEIVED_RET => received_ret;
    /// Offset of `flags` in the record of `sock_recv_length`.
    RECEIVED_FLAGS => received_flags;
    /// Offset of `skbaddr` in the record of `kfree_skb`.
    DROPPED_SKBADDR => dropped_skbaddr;
    /// Offset of `skbaddr` in the record of `consume_skb`.
    FREED_SKBADDR => freed_skbaddr;
    /// Offset of `skaddr` in the record of `inet_sock_set_state`.
    STATE_SKADDR => state_skaddr;
    /// Offset of `newstate` in the record of `inet_sock_set_state`.
    STATE_NEWSTATE => state_newstate;
    /// Offset of `skbaddr` in the record of `net_dev_queue`.
    QUEUE_SKBADDR => queue_skbaddr;
    /// Offset of `sk` in the record of `sock_send_length`.
    SENT_SK => sent_sk;
    /// Offset of `ret` in the record of `sock_send_length`.
    SENT_RET => sent_ret;
    /// Offset of `pid` in the record of `sched_waking`.
    WAKING_PID => waking_pid;
    /// Offset of `pid` in the record of `sched_wakeup`.
    WAKEUP_PID => wakeup_pid;
    /// Offset of `ctx` in the record of `io_uring_submit_req`.
    RING_SUBMIT_CTX => ring_submit_ctx;
    /// Offset of `user_data` in the record of `io_uring_submit_req`.
    RING_SUBMIT_DATA => ring_submit_data;
    /// Offset of `ctx` in the record of `io_uring_submit_sqe`.
    RING_SUBMIT_OLDER_CTX => ring_submit_older_ctx;
    /// Offset of `user_data` in the record of `io_uring_submit_sqe`.
    RING_SUBMIT_OLDER_DATA => ring_submit_older_data;
    /// Offset of `ctx` in the record of `io_uring_complete`.
    RING_COMPLETE_CTX => ring_complete_ctx;
    /// Offset of `user_data` in the record of `io_uring_complete`.
    RING_COMPLETE_DATA => ring_complete_data;
    /// Offset of `ctx` in the record of `io_uring_queue_async_work`.
    RING_WORKER_CTX => ring_worker_ctx;
    /// Offset of `req` in the record of `io_uring_queue_async_work`.
    RING_WORKER_REQ => ring_worker_req;
    /// Offset of `user_data` in the record of `io_uring_queue_async_work`.
    RING_WORKER_DATA => ring_worker_data;
    /// Offset of `id` in the record of `sys_enter`.
    CALL_ID => call_id;
    /// Offset of `vec` in the record of `softirq_entry`.
    SOFTIRQ_VEC => softirq_vec;
    /// Offset of `vec` in the record of `softirq_exit`.
    SOFTIRQ_END_VEC => softirq_end_vec;
    /// Offset of `vcpu_id` in the record of `kvm_entry`.
    ENTRY_VCPU => entry_vcpu;
    /// Offset of `exit_reason` in the record of `kvm_exit`.
    EXIT_REASON => exit_reason;
    /// Offset of `apicid` in the record of `kvm_apic_accept_irq`.
    INTERRUPT_VCPU => interrupt_vcpu;
    /// Offset of `ns` in the record of `kvm_vcpu_wakeup`.
    HALT_NS => halt_ns;
    /// Offset of `waited` in the record of `kvm_vcpu_wakeup`.
    HALT_WAITED => halt_waited;
    /// Offset of `port` in the record of `kvm_pio`.
    PIO_PORT => pio_port;
    /// Offset of `gpa` in the record of `kvm_mmio`.
    MMIO_GPA => mmio_gpa;
    /// Points that a record holds, at most `RECORD_POINTS`.
    RECORD_LIMIT => record_limit;
    /// Sockets in the table less 1, which is a power of two less 1.
    SLOTS_MASK => slots_mask;
    /// Threads in the table less 1, as [`slots_mask`].
    THREADS_MASK => threads_mask;
    /// skbs in the table less 1, as [`slots_mask`].
    PACKETS_MASK => packets_mask;
    /// bios in the table less 1, as [`slots_mask`].
    BIOS_MASK => bios_mask;
    /// Records under way in the table less 1, as [`slots_mask`].
    RECORDS_MASK => records_mask;
    /// Requests in VMs in the table less 1, as [`slots_mask`].
    CROSSINGS_MASK => crossings_mask;
    /// Connections into VMs in the table less 1, as [`slots_mask`].
    CONNECTIONS_MASK => connections_mask;
    /// Offset of `tcp_sock.snd_nxt`; [`NO_FIELD`]: there is none.
    TCP_NEXT => tcp_next;
    /// Offset of the byte that begins with `inet_connection_sock.icsk_ca_state`; [`NO_FIELD`]: there is none.
    TCP_CONGESTION => tcp_congestion;
    /// Offset of `inet_connection_sock.icsk_pending`; [`NO_FIELD`]: there is none.
    TCP_PENDING => tcp_pending;
    /// Offset of `iomap_dio.submit.waiter`; [`NO_FIELD`]: there is none.
    DIO_WAITER => dio_waiter;
    /// Offset of `io_kiocb.ctx`; [`NO_FIELD`]: there is none.
    RING_REQUEST_CTX => ring_request_ctx;
    /// Offset of `io_kiocb.cqe.user_data`; [`NO_FIELD`]: there is none.
    RING_REQUEST_DATA => ring_request_data;
    /// 1: there are disks that pass bios on to others.
    STACKED => stacked;
    /// 1: faults of the probes go to the terminal.
    DEBUG_PROBES => debug_probes;
}
