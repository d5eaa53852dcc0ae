//! The ICMPv6 socket: router discovery only, hop limit and interface of each packet, 255 on what is sent.
#![allow(unsafe_code)]

use std::{
    collections::BTreeSet,
    io, mem,
    net::{Ipv6Addr, SocketAddrV6},
    os::fd::{AsRawFd, RawFd},
    ptr,
    sync::{Mutex, PoisonError},
};

use libc::{c_int, c_void};
use socket2::{Domain, Protocol, Type};
use tokio::io::{Interest, unix::AsyncFd};

use super::machine::Arrival;

/// More than any link of Ethernet's size carries; longer ones are discarded.
pub(super) const BUFFER: usize = 2048;

const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xFF02, 0, 0, 0, 0, 0, 0, 2);

/// `ICMP6_FILTER` of linux/icmpv6.h, and its filter: a bit that is set blocks.
const ICMP6_FILTER: c_int = 1;
const SOLICITATION: usize = 133;
const ADVERTISEMENT: usize = 134;

#[derive(Debug)]
pub(super) struct Socket {
    socket: socket2::Socket,
    /// Interfaces on which solicitations are heard.
    joined: Mutex<BTreeSet<u32>>,
}

impl AsRawFd for Socket {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

impl Socket {
    /// Opens one, for the runtime of this task.
    pub(super) fn open() -> io::Result<AsyncFd<Self>> {
        let kind = Type::RAW.nonblocking().cloexec();
        let socket = socket2::Socket::new(Domain::IPV6, kind, Some(Protocol::ICMPV6))?;
        let mut blocked = [u32::MAX; 8];
        for pass in [SOLICITATION, ADVERTISEMENT] {
            blocked[pass / 32] &= !(1 << (pass % 32));
        }
        set(&socket, libc::IPPROTO_ICMPV6, ICMP6_FILTER, &blocked)?;
        set(&socket, libc::IPPROTO_IPV6, libc::IPV6_RECVHOPLIMIT, &1)?;
        set(&socket, libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, &1)?;
        set(&socket, libc::IPPROTO_IPV6, libc::IPV6_MULTICAST_HOPS, &255)?;
        socket.set_multicast_loop_v6(false)?;
        let opened = Self { socket, joined: Mutex::default() };
        // SAFETY: `socket` owns the descriptor, is never replaced, and `as_raw_fd` always returns it.
        let registered = unsafe { AsyncFd::register_with_interest(opened, Interest::READABLE) };
        registered.map_err(io::Error::from)
    }

    /// Hears solicitations on the interface.
    pub(super) fn join(&self, index: u32) -> io::Result<()> {
        let mut joined = self.joined.lock().unwrap_or_else(PoisonError::into_inner);
        if joined.contains(&index) {
            return Ok(());
        }
        match self.socket.join_multicast_v6(&ALL_ROUTERS, index) {
            Err(error) if error.kind() != io::ErrorKind::AddrInUse => return Err(error),
            _ => {}
        }
        joined.insert(index);
        Ok(())
    }

    pub(super) fn send(&self, index: u32, to: Ipv6Addr, message: &[u8]) -> io::Result<()> {
        self.socket.send_to(message, &SocketAddrV6::new(to, 0, 0, index).into()).map(drop)
    }

    /// One message, without blocking.
    pub(super) fn receive(&self, buffer: &mut [u8; BUFFER]) -> io::Result<(usize, Arrival)> {
        // SAFETY: plain integers, arrays of them and raw pointers, for which zero is a value.
        let (mut header, mut name): (libc::msghdr, libc::sockaddr_in6) = unsafe { (mem::zeroed(), mem::zeroed()) };
        let mut iov = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: BUFFER };
        let mut control = [0u64; 16];
        header.msg_name = ptr::from_mut(&mut name).cast();
        header.msg_namelen = mem::size_of_val(&name) as u32;
        header.msg_iov = &raw mut iov;
        header.msg_iovlen = 1;
        header.msg_control = control.as_mut_ptr().cast();
        header.msg_controllen = mem::size_of_val(&control) as _;
        // SAFETY: the header points to live buffers of the lengths given, exclusively ours for the call.
        let length = unsafe { libc::recvmsg(self.as_raw_fd(), &raw mut header, libc::MSG_DONTWAIT) };
        let length = usize::try_from(length).map_err(|_| io::Error::last_os_error())?;
        let mut arrival = Arrival { source: Ipv6Addr::from(name.sin6_addr.s6_addr), interface: 0, hop_limit: 0 };
        // SAFETY: the kernel has set `msg_controllen` to what it filled of `control`; the CMSG functions stay within.
        let mut cmsg = unsafe { libc::CMSG_FIRSTHDR(&raw const header) };
        while !cmsg.is_null() {
            // SAFETY: `cmsg` is a complete control message within `control`, aligned like `cmsghdr`.
            unsafe {
                note(&*cmsg, libc::CMSG_DATA(cmsg), &mut arrival);
                cmsg = libc::CMSG_NXTHDR(&raw const header, cmsg);
            }
        }
        // A message that did not fit is cut; an option that overruns makes it invalid.
        Ok((length.min(BUFFER), arrival))
    }
}

/// # Safety
/// `data` must point to the payload of `cmsg`.
unsafe fn note(cmsg: &libc::cmsghdr, data: *const u8, arrival: &mut Arrival) {
    // SAFETY: the kernel writes the type that belongs to each level and type; reads are unaligned.
    unsafe {
        match (cmsg.cmsg_level, cmsg.cmsg_type) {
            (libc::IPPROTO_IPV6, libc::IPV6_HOPLIMIT) => {
                arrival.hop_limit = u8::try_from(data.cast::<c_int>().read_unaligned()).unwrap_or(0);
            }
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                arrival.interface = data.cast::<libc::in6_pktinfo>().read_unaligned().ipi6_ifindex;
            }
            _ => {}
        }
    }
}

fn set<T>(socket: &socket2::Socket, level: c_int, name: c_int, value: &T) -> io::Result<()> {
    // SAFETY: `value` is live, and its size is given.
    let result = unsafe {
        let data: *const c_void = ptr::from_ref(value).cast();
        libc::setsockopt(socket.as_raw_fd(), level, name, data, mem::size_of::<T>() as u32)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
