//! What was on the wire: when the kernel of one end had the packets of the other, whoever was late to read them.
//!
//! A session that is declared down says two things at once: that one end sent nothing, or that the other did not
//! look. The stamps tell which.

use std::{
    collections::VecDeque,
    ffi::CString,
    fs::File,
    io, mem,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    ptr, thread,
    time::{Duration, SystemTime},
};

use libc::c_int;

/// How far back is looked for a silence.
const WINDOW: Duration = Duration::from_millis(200);
const BFD: [u8; 2] = 3784u16.to_be_bytes();

/// The packets of BFD that came in on one interface.
pub(crate) struct Witness {
    socket: OwnedFd,
    /// Since the epoch, in order.
    stamps: VecDeque<Duration>,
}

impl Witness {
    pub(crate) fn start(space: &str, interface: &str) -> io::Result<Self> {
        let file = File::open(format!("/run/netns/{space}"))?;
        let interface = CString::new(interface)?;
        let opened = thread::spawn(move || {
            // SAFETY: the descriptor is open; only this thread moves, and the socket stays where it was made.
            check(unsafe { libc::setns(file.as_raw_fd(), libc::CLONE_NEWNET) })?;
            open(&interface)
        });
        let socket = opened.join().map_err(|_| io::Error::other("thread panicked"))??;
        Ok(Self { socket, stamps: VecDeque::new() })
    }

    /// Takes what has come; often enough, or the socket overflows.
    pub(crate) fn drain(&mut self) {
        while let Ok(stamp) = receive(&self.socket) {
            self.stamps.extend(stamp);
        }
        let last = self.stamps.back().copied().unwrap_or_default();
        while self.stamps.front().is_some_and(|first| *first + 10 * WINDOW < last) {
            self.stamps.pop_front();
        }
    }

    /// The longest time without a packet in the last while before `end`.
    pub(crate) fn silence(&self, end: SystemTime) -> Duration {
        let end = end.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let before = self.stamps.iter().copied().filter(|stamp| *stamp <= end).chain([end]);
        let pairs = before.clone().zip(before.skip(1));
        pairs.filter(|(_, next)| *next + WINDOW >= end).map(|(one, next)| next - one).max().unwrap_or(WINDOW)
    }
}

fn open(interface: &CString) -> io::Result<OwnedFd> {
    let protocol = (libc::ETH_P_IP as u16).to_be();
    // SAFETY: plain integers and arrays, for which zero is a value; all pointers are to live values of the sizes given;
    // the descriptor is new and ours.
    unsafe {
        let flags = libc::SOCK_DGRAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
        let socket = OwnedFd::from_raw_fd(check(libc::socket(libc::AF_PACKET, flags, 0))?);
        for (level, name) in
            [(libc::SOL_SOCKET, libc::SO_TIMESTAMPNS), (libc::SOL_PACKET, libc::PACKET_IGNORE_OUTGOING)]
        {
            let one: c_int = 1;
            let size = mem::size_of::<c_int>() as u32;
            check(libc::setsockopt(socket.as_raw_fd(), level, name, ptr::from_ref(&one).cast(), size))?;
        }
        let mut address: libc::sockaddr_ll = mem::zeroed();
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = protocol;
        address.sll_ifindex = libc::if_nametoindex(interface.as_ptr()) as c_int;
        let size = mem::size_of::<libc::sockaddr_ll>() as u32;
        check(libc::bind(socket.as_raw_fd(), ptr::from_ref(&address).cast(), size))?;
        Ok(socket)
    }
}

/// The next packet: its stamp if it is one of BFD.
fn receive(socket: &OwnedFd) -> io::Result<Option<Duration>> {
    let (mut packet, mut control) = ([0u8; 64], [0u64; 8]);
    let mut part = libc::iovec { iov_base: packet.as_mut_ptr().cast(), iov_len: packet.len() };
    // SAFETY: plain integers and pointers, for which zero is a value; all pointers are to live buffers of the sizes given.
    unsafe {
        let mut message: libc::msghdr = mem::zeroed();
        (message.msg_iov, message.msg_iovlen) = (&raw mut part, 1);
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = mem::size_of_val(&control) as _;
        if libc::recvmsg(socket.as_raw_fd(), &raw mut message, 0) < 0 {
            return Err(io::Error::last_os_error());
        }
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        let stamped = !header.is_null() && (*header).cmsg_type == libc::SCM_TIMESTAMPNS;
        // An IPv4 header without options, UDP, and the port.
        if !stamped || packet[0] != 0x45 || packet[9] != libc::IPPROTO_UDP as u8 || packet[22..24] != BFD {
            return Ok(None);
        }
        let stamp = libc::CMSG_DATA(header).cast::<libc::timespec>().read_unaligned();
        Ok(Some(Duration::new(stamp.tv_sec as u64, stamp.tv_nsec as u32)))
    }
}

fn check(result: c_int) -> io::Result<c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
