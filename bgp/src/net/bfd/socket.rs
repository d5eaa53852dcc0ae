//! The system calls of the BFD driver that `std` and `socket2` have not got: reading in batches with the facts
//! that the kernel knows of a packet, absolute timers, the real-time class. All `unsafe` of the driver is here.
#![allow(unsafe_code)]

use std::{
    ffi::CString,
    io, mem,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    ptr,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use libc::{c_int, c_void};
use socket2::{Domain, Protocol, Socket, Type};

/// Packets read with one system call.
pub(super) const BATCH: usize = 16;
/// More than the Length of a control packet can say.
const BUFFER: usize = 256;

/// Octets that a receiving socket may hold, by the kernel's generous count: some thousand packets.
const QUEUE: c_int = 1 << 20;

/// What the kernel knows of a packet.
#[derive(Debug, Clone, Copy)]
pub(super) struct Datagram<'a> {
    pub(super) payload: &'a [u8],
    /// Unspecified on a packet socket.
    pub(super) source: IpAddr,
    /// 0 where the kernel did not say.
    pub(super) ttl: u8,
    /// Index of the interface, 0 where the kernel did not say.
    pub(super) interface: u32,
    /// When it came in, since the epoch of the wall clock.
    pub(super) stamp: Option<Duration>,
}

/// Buffers of one batch, made once.
pub(super) struct Inbox {
    slots: Box<[Slot; BATCH]>,
    headers: Box<[libc::mmsghdr; BATCH]>,
}

struct Slot {
    name: libc::sockaddr_storage,
    iov: libc::iovec,
    buffer: [u8; BUFFER],
    /// 64 words: alignment for `cmsghdr`.
    control: [u64; 64],
}

// SAFETY: the raw pointers in `slots` and `headers` point into the boxes themselves and are written anew before
// each use; nothing is shared with another thread.
unsafe impl Send for Inbox {}

impl Inbox {
    pub(super) fn new() -> Self {
        // SAFETY: all fields are plain integers, arrays of them and raw pointers, for which zero is a value.
        unsafe { Self { slots: Box::new(mem::zeroed()), headers: Box::new(mem::zeroed()) } }
    }

    /// Reads what waits, at most [`BATCH`] packets, without blocking; fewer means that nothing more waited.
    pub(super) fn receive(&mut self, socket: &Socket) -> io::Result<usize> {
        for (header, slot) in self.headers.iter_mut().zip(self.slots.iter_mut()) {
            slot.iov = libc::iovec { iov_base: slot.buffer.as_mut_ptr().cast(), iov_len: BUFFER };
            let message = &mut header.msg_hdr;
            message.msg_name = ptr::from_mut(&mut slot.name).cast();
            message.msg_namelen = mem::size_of_val(&slot.name) as u32;
            message.msg_iov = &mut slot.iov;
            message.msg_iovlen = 1;
            message.msg_control = slot.control.as_mut_ptr().cast();
            message.msg_controllen = mem::size_of_val(&slot.control) as _;
        }
        let flags = libc::MSG_DONTWAIT as _;
        // SAFETY: each header points to live buffers of the lengths given, exclusively borrowed for the call.
        let count = unsafe {
            let headers = self.headers.as_mut_ptr();
            libc::recvmmsg(socket.as_raw_fd(), headers, BATCH as u32, flags, ptr::null_mut())
        };
        match check(count) {
            Ok(count) => Ok(count as usize),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
            Err(error) => Err(error),
        }
    }

    /// One packet of the last batch.
    pub(super) fn datagram(&self, index: usize) -> Datagram<'_> {
        let (header, slot) = (&self.headers[index], &self.slots[index]);
        let payload = &slot.buffer[..(header.msg_len as usize).min(BUFFER)];
        let mut datagram = Datagram { payload, source: source(&slot.name), ttl: 0, interface: 0, stamp: None };
        // SAFETY: `msg_control` points to `slot.control`, and the kernel has set `msg_controllen` to what it
        // filled; the CMSG functions stay within.
        let mut cmsg = unsafe { libc::CMSG_FIRSTHDR(&header.msg_hdr) };
        while !cmsg.is_null() {
            // SAFETY: `cmsg` is a complete control message within `slot.control`, aligned like `cmsghdr`.
            unsafe {
                note(&*cmsg, libc::CMSG_DATA(cmsg), &mut datagram);
                cmsg = libc::CMSG_NXTHDR(&header.msg_hdr, cmsg);
            }
        }
        datagram
    }
}

/// # Safety
/// `data` must point to the payload of `cmsg`.
unsafe fn note(cmsg: &libc::cmsghdr, data: *const u8, datagram: &mut Datagram<'_>) {
    // SAFETY: the kernel writes the type that belongs to each level and type; reads are unaligned.
    unsafe {
        match (cmsg.cmsg_level, cmsg.cmsg_type) {
            (libc::IPPROTO_IP, libc::IP_TTL) | (libc::IPPROTO_IPV6, libc::IPV6_HOPLIMIT) => {
                datagram.ttl = u8::try_from(data.cast::<c_int>().read_unaligned()).unwrap_or(0);
            }
            (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                datagram.interface = data.cast::<libc::in_pktinfo>().read_unaligned().ipi_ifindex as u32;
            }
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                datagram.interface = data.cast::<libc::in6_pktinfo>().read_unaligned().ipi6_ifindex;
            }
            (libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS) => {
                let stamp = data.cast::<libc::timespec>().read_unaligned();
                datagram.stamp = Some(Duration::new(stamp.tv_sec as u64, stamp.tv_nsec as u32));
            }
            _ => {}
        }
    }
}

fn source(name: &libc::sockaddr_storage) -> IpAddr {
    let name = ptr::from_ref(name);
    // SAFETY: `sockaddr_storage` is large enough and aligned for every address, and the family says which it is.
    unsafe {
        match c_int::from((*name).ss_family) {
            libc::AF_INET => Ipv4Addr::from(u32::from_be((*name.cast::<libc::sockaddr_in>()).sin_addr.s_addr)).into(),
            libc::AF_INET6 => Ipv6Addr::from((*name.cast::<libc::sockaddr_in6>()).sin6_addr.s6_addr).into(),
            _ => Ipv4Addr::UNSPECIFIED.into(),
        }
    }
}

/// A socket that receives on `port`, with TTL, interface and time of each packet.
pub(super) fn receiver(v6: bool, port: u16) -> io::Result<Socket> {
    let socket = udp(v6)?;
    let asked: &[(c_int, c_int)] = if v6 {
        &[(libc::IPPROTO_IPV6, libc::IPV6_RECVHOPLIMIT), (libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO)]
    } else {
        &[(libc::IPPROTO_IP, libc::IP_RECVTTL), (libc::IPPROTO_IP, libc::IP_PKTINFO)]
    };
    for (level, name) in asked {
        set_option(&socket, *level, *name, 1)?;
    }
    set_option(&socket, libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, 1)?;
    // Beyond the limit for everybody only with CAP_NET_ADMIN; else what is allowed.
    if set_option(&socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, QUEUE).is_err() {
        set_option(&socket, libc::SOL_SOCKET, libc::SO_RCVBUF, QUEUE)?;
    }
    let any: SocketAddr = if v6 { (Ipv6Addr::UNSPECIFIED, port).into() } else { (Ipv4Addr::UNSPECIFIED, port).into() };
    socket.bind(&any.into())?;
    Ok(socket)
}

/// A socket to send from, not bound yet: TTL 255 (RFC 5881 §5), precedence "network control", and a receive
/// buffer as small as the kernel allows, because nobody reads it.
pub(super) fn sender(v6: bool, interface: Option<&str>) -> io::Result<Socket> {
    const NETWORK_CONTROL: c_int = 0xC0;
    let socket = udp(v6)?;
    if v6 {
        set_option(&socket, libc::IPPROTO_IPV6, libc::IPV6_UNICAST_HOPS, 255)?;
        set_option(&socket, libc::IPPROTO_IPV6, libc::IPV6_TCLASS, NETWORK_CONTROL)?;
    } else {
        set_option(&socket, libc::IPPROTO_IP, libc::IP_TTL, 255)?;
        set_option(&socket, libc::IPPROTO_IP, libc::IP_TOS, NETWORK_CONTROL)?;
    }
    set_option(&socket, libc::SOL_SOCKET, libc::SO_RCVBUF, 1)?;
    if let Some(interface) = interface {
        socket.bind_device(Some(interface.as_bytes()))?;
    }
    Ok(socket)
}

fn udp(v6: bool) -> io::Result<Socket> {
    let domain = if v6 { Domain::IPV6 } else { Domain::IPV4 };
    let socket = Socket::new(domain, Type::DGRAM.nonblocking().cloexec(), Some(Protocol::UDP))?;
    if v6 {
        socket.set_only_v6(true)?;
    }
    Ok(socket)
}

pub(super) fn set_option(socket: &Socket, level: c_int, name: c_int, value: c_int) -> io::Result<()> {
    // SAFETY: `value` is a live c_int, and its size is given.
    check(unsafe {
        let value: *const c_void = ptr::from_ref(&value).cast();
        libc::setsockopt(socket.as_raw_fd(), level, name, value, mem::size_of::<c_int>() as u32)
    })?;
    Ok(())
}

/// The index of an interface of this network namespace.
pub(super) fn interface_index(name: &str) -> io::Result<u32> {
    let name = CString::new(name).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    // SAFETY: `name` is a live C string.
    match unsafe { libc::if_nametoindex(name.as_ptr()) } {
        0 => Err(io::Error::last_os_error()),
        index => Ok(index),
    }
}

/// A timer on the clock of [`Instant`], armed for moments and not for spans: what happens between the decision
/// and the system call does not delay it.
pub(super) struct Timer {
    fd: OwnedFd,
    /// The same moment on both faces of the monotonic clock.
    origin: (Instant, Duration),
    armed: Option<Instant>,
    /// It has fired: the descriptor stays readable until it is armed or disarmed again.
    fired: bool,
}

impl Timer {
    pub(super) fn new() -> io::Result<Self> {
        // SAFETY: takes no pointers; the descriptor is new and ours.
        let fd = unsafe {
            let fd = libc::timerfd_create(libc::CLOCK_MONOTONIC, libc::TFD_CLOEXEC | libc::TFD_NONBLOCK);
            OwnedFd::from_raw_fd(check(fd)?)
        };
        let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        let before = Instant::now();
        // SAFETY: `now` is a live timespec.
        check(unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut now) })?;
        Ok(Self {
            fd,
            origin: (before, Duration::new(now.tv_sec as u64, now.tv_nsec as u32)),
            armed: None,
            fired: false,
        })
    }

    /// Arms the timer, unless it is armed for that moment.
    pub(super) fn arm(&mut self, at: Option<Instant>) -> io::Result<()> {
        if at == self.armed && !self.fired {
            return Ok(());
        }
        let zero = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // Zero disarms.
        let value = at.map_or(zero, |at| self.clock(at));
        let spec = libc::itimerspec { it_interval: zero, it_value: value };
        // SAFETY: `spec` is live, and the old value is not asked for.
        check(unsafe { libc::timerfd_settime(self.fd.as_raw_fd(), libc::TFD_TIMER_ABSTIME, &spec, ptr::null_mut()) })?;
        (self.armed, self.fired) = (at, false);
        Ok(())
    }

    /// Sleeps until then; a signal may end it early.
    pub(super) fn sleep_until(&self, at: Instant) {
        let at = self.clock(at);
        // SAFETY: `at` is a live timespec, and the rest is not asked for.
        unsafe { libc::clock_nanosleep(libc::CLOCK_MONOTONIC, libc::TIMER_ABSTIME, &at, ptr::null_mut()) };
    }

    /// The moment on the clock of the kernel; one before the origin is as good as the origin.
    fn clock(&self, at: Instant) -> libc::timespec {
        let value = self.origin.1 + at.saturating_duration_since(self.origin.0);
        libc::timespec { tv_sec: value.as_secs() as _, tv_nsec: value.subsec_nanos().into() }
    }

    /// The timer was armed for this moment; it is not armed any more once it has passed.
    pub(super) fn take_fired(&mut self, now: Instant) -> Option<Instant> {
        let at = self.armed.take_if(|at| *at <= now);
        self.fired |= at.is_some();
        at
    }
}

impl AsRawFd for Timer {
    fn as_raw_fd(&self) -> c_int {
        self.fd.as_raw_fd()
    }
}

/// A descriptor that other threads make readable.
#[derive(Debug)]
pub(super) struct Bell {
    fd: OwnedFd,
    rung: AtomicBool,
}

impl Bell {
    pub(super) fn new() -> io::Result<Self> {
        // SAFETY: takes no pointers; the descriptor is new and ours.
        let fd = unsafe { OwnedFd::from_raw_fd(check(libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK))?) };
        Ok(Self { fd, rung: AtomicBool::new(false) })
    }

    /// Whether it was rung since it was silenced; no system call.
    pub(super) fn rings(&self) -> bool {
        self.rung.load(Ordering::Acquire)
    }

    pub(super) fn ring(&self) {
        self.rung.store(true, Ordering::Release);
        let one = 1u64;
        // SAFETY: `one` is eight live octets. A full counter is a bell that rings already.
        unsafe { libc::write(self.fd.as_raw_fd(), ptr::from_ref(&one).cast(), 8) };
    }

    /// Before what it was rung for is looked at.
    pub(super) fn silence(&self) {
        self.rung.store(false, Ordering::Release);
        let mut count = 0u64;
        // SAFETY: `count` is eight live octets. Nothing to read is a bell that does not ring.
        unsafe { libc::read(self.fd.as_raw_fd(), ptr::from_mut(&mut count).cast(), 8) };
    }
}

impl AsRawFd for Bell {
    fn as_raw_fd(&self) -> c_int {
        self.fd.as_raw_fd()
    }
}

/// A descriptor to wait for; `None` is passed over.
pub(super) fn poll_entry(fd: Option<&impl AsRawFd>) -> libc::pollfd {
    libc::pollfd { fd: fd.map_or(-1, AsRawFd::as_raw_fd), events: libc::POLLIN, revents: 0 }
}

/// Waits until one of them is readable.
pub(super) fn wait(entries: &mut [libc::pollfd]) -> io::Result<()> {
    // SAFETY: `entries` is live and its length is given.
    match check(unsafe { libc::poll(entries.as_mut_ptr(), entries.len() as _, -1) }) {
        Err(error) if error.kind() != io::ErrorKind::Interrupted => Err(error),
        _ => Ok(()),
    }
}

/// Puts the calling thread into the real-time class and takes the slack out of its timers.
pub(super) fn become_real_time(priority: u8) -> io::Result<()> {
    // SAFETY: takes no pointers; only this thread's timers are concerned.
    unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1) };
    // All that the kernel reads of `sched_param`. Past the C library: musl's function only refuses, since POSIX means a
    // process where Linux means a thread.
    let priority = c_int::from(priority);
    let policy = libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK;
    // SAFETY: `priority` is live; 0 is the calling thread.
    match unsafe { libc::syscall(libc::SYS_sched_setscheduler, 0, policy, &raw const priority) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The processors that this thread may run on.
pub(super) fn processors() -> io::Result<Vec<usize>> {
    // SAFETY: plain integers, for which zero is a value; the set is live and its size is given; 0 is this thread.
    let set = unsafe {
        let mut set: libc::cpu_set_t = mem::zeroed();
        check(libc::sched_getaffinity(0, mem::size_of::<libc::cpu_set_t>(), &mut set))?;
        set
    };
    // SAFETY: the index is below the size of the set.
    Ok((0..libc::CPU_SETSIZE as usize).filter(|cpu| unsafe { libc::CPU_ISSET(*cpu, &set) }).collect())
}

/// Keeps this thread on some of them.
pub(super) fn run_on(processors: &[usize]) -> io::Result<()> {
    // SAFETY: as above; the indices came from such a set.
    unsafe {
        let mut set: libc::cpu_set_t = mem::zeroed();
        processors.iter().for_each(|cpu| libc::CPU_SET(*cpu, &mut set));
        check(libc::sched_setaffinity(0, mem::size_of::<libc::cpu_set_t>(), &set))?;
    }
    Ok(())
}

/// Keeps what this process has mapped in memory once it was used: a page that has to be read from a disk makes a
/// real-time thread late. What is mapped later is not concerned, so that a limit never fails it.
pub(super) fn lock_memory() -> io::Result<()> {
    // SAFETY: takes no pointers.
    check(unsafe { libc::mlockall(libc::MCL_CURRENT | libc::MCL_ONFAULT) })?;
    Ok(())
}

/// Eight octets from the kernel's generator.
pub(super) fn random() -> io::Result<u64> {
    let mut value = 0u64;
    // SAFETY: `value` is eight live octets. Up to 256 octets are never cut short.
    let count = unsafe { libc::getrandom(ptr::from_mut(&mut value).cast(), 8, 0) };
    if count == 8 { Ok(value) } else { Err(io::Error::last_os_error()) }
}

fn check(result: c_int) -> io::Result<c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Sends IPv4 packets to a link address past the kernel's routing.
pub(super) struct PacketSocket {
    packets: Socket,
    /// Any internet socket: the neighbour table is asked through it.
    internet: Socket,
}

const ETH_P_IP: u16 = libc::ETH_P_IP as u16;

impl PacketSocket {
    pub(super) fn open() -> io::Result<Self> {
        // Protocol 0: it receives nothing.
        Ok(Self { packets: packet_socket(0)?, internet: udp(false)? })
    }

    pub(super) fn send(&self, packet: &[u8], interface: u32, link_address: [u8; 6]) -> io::Result<()> {
        // SAFETY: plain integers and arrays, for which zero is a value.
        let mut to: libc::sockaddr_ll = unsafe { mem::zeroed() };
        to.sll_family = libc::AF_PACKET as u16;
        to.sll_protocol = ETH_P_IP.to_be();
        to.sll_ifindex = interface as c_int;
        to.sll_halen = 6;
        to.sll_addr[..6].copy_from_slice(&link_address);
        // SAFETY: `packet` and `to` are live, and their sizes are given.
        let sent = unsafe {
            let (data, to) = (packet.as_ptr().cast(), ptr::from_ref(&to).cast());
            let size = mem::size_of::<libc::sockaddr_ll>() as u32;
            libc::sendto(self.packets.as_raw_fd(), data, packet.len(), libc::MSG_DONTWAIT, to, size)
        };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// The link address of an IPv4 neighbour on an Ethernet, from the kernel's table (arp(7)).
    pub(super) fn neighbour(&self, peer: Ipv4Addr, interface: &str) -> io::Result<[u8; 6]> {
        let mut request = ArpRequest::default();
        request.protocol[..2].copy_from_slice(&(libc::AF_INET as u16).to_ne_bytes());
        request.protocol[4..8].copy_from_slice(&peer.octets());
        // The last octet stays 0.
        let name = interface.as_bytes().get(..15).unwrap_or(interface.as_bytes());
        request.device[..name.len()].copy_from_slice(name);
        // SAFETY: `request` has the layout of `struct arpreq` and is live.
        check(unsafe { libc::ioctl(self.internet.as_raw_fd(), SIOCGARP, ptr::from_mut(&mut request)) })?;
        let address = request.hardware[2..8].try_into().expect("six octets");
        if address == [0; 6] { Err(io::ErrorKind::HostUnreachable.into()) } else { Ok(address) }
    }
}

const SIOCGARP: libc::Ioctl = 0x8954;

/// `struct arpreq` of linux/if_arp.h; addresses are `struct sockaddr`.
#[repr(C, align(4))]
#[derive(Default)]
struct ArpRequest {
    protocol: [u8; 16],
    hardware: [u8; 16],
    flags: c_int,
    netmask: [u8; 16],
    device: [u8; 16],
}

/// A socket that sees the IPv4 packets to UDP port 3785 that come in on any interface, from the IP header on.
pub(super) fn echo_receiver() -> io::Result<Socket> {
    const PACKET_IGNORE_OUTGOING: c_int = 23;
    let socket = packet_socket(0)?;
    let code = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    let mut program = [
        code(0x30, 0, 0, 9),                        // A = protocol
        code(0x15, 0, 6, libc::IPPROTO_UDP as u32), // UDP, or drop
        code(0x28, 0, 0, 6),                        // A = fragment field
        code(0x45, 4, 0, 0x1FFF),                   // a later fragment: drop
        code(0xB1, 0, 0, 0),                        // X = length of the IP header
        code(0x48, 0, 0, 2),                        // A = UDP destination port
        code(0x15, 0, 1, crate::bfd::ECHO_PORT.into()),
        code(0x06, 0, 0, u32::MAX), // take
        code(0x06, 0, 0, 0),        // drop
    ];
    let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: `filter` points to the live program, which the kernel copies and checks.
    check(unsafe {
        let value: *const c_void = ptr::from_ref(&filter).cast();
        let size = mem::size_of::<libc::sock_fprog>() as u32;
        libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, value, size)
    })?;
    set_option(&socket, libc::SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)?;
    set_option(&socket, libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, 1)?;
    // SAFETY: plain integers and arrays, for which zero is a value.
    let mut any: libc::sockaddr_ll = unsafe { mem::zeroed() };
    any.sll_family = libc::AF_PACKET as u16;
    any.sll_protocol = ETH_P_IP.to_be();
    // SAFETY: `any` is live, and its size is given. Bound last: nothing unfiltered is ever queued.
    check(unsafe {
        let size = mem::size_of::<libc::sockaddr_ll>() as u32;
        libc::bind(socket.as_raw_fd(), ptr::from_ref(&any).cast(), size)
    })?;
    Ok(socket)
}

fn packet_socket(protocol: u16) -> io::Result<Socket> {
    let protocol = Protocol::from(c_int::from(protocol.to_be()));
    Socket::new(Domain::PACKET, Type::DGRAM.nonblocking().cloexec(), Some(protocol))
}
