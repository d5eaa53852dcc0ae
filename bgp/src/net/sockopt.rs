//! Socket options that no safe crate offers, and the addresses of this host. The only unsafe code of the crate.

#![allow(unsafe_code)]

use std::{
    ffi::CStr,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6},
    os::fd::{AsFd, AsRawFd},
};

use socket2::SockAddr;

use crate::speaker::{AoAlgorithm, AoKey};

/// linux/tcp.h: the key is for a whole prefix.
const TCP_MD5SIG_FLAG_PREFIX: u8 = 1;

/// `struct tcp_md5sig` (linux/tcp.h).
#[repr(C)]
struct TcpMd5Sig {
    address: libc::sockaddr_storage,
    flags: u8,
    prefix_length: u8,
    key_length: u16,
    interface: i32,
    key: [u8; libc::TCP_MD5SIG_MAXKEYLEN],
}

const _: () = assert!(size_of::<TcpMd5Sig>() == 216);

fn set<T>(socket: &impl AsFd, level: i32, option: i32, value: &T) -> io::Result<()> {
    let size = libc::socklen_t::try_from(size_of::<T>()).expect("option values are small");
    // SAFETY: the descriptor is open for the whole call, and the kernel reads `size` octets of a live `T`.
    let result =
        unsafe { libc::setsockopt(socket.as_fd().as_raw_fd(), level, option, std::ptr::from_ref(value).cast(), size) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Octets written that the other end has not acknowledged, sent or not.
pub(super) fn unacknowledged(socket: &impl AsFd) -> io::Result<u64> {
    let mut octets: libc::c_int = 0;
    // SAFETY: the descriptor is open for the whole call, and the kernel writes one `int` (tcp(7), SIOCOUTQ).
    let result = unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), libc::TIOCOUTQ, &raw mut octets) };
    if result == 0 { Ok(u64::try_from(octets).unwrap_or_default()) } else { Err(io::Error::last_os_error()) }
}

/// An address without a port, as the options of keys want it.
fn storage(address: IpAddr) -> libc::sockaddr_storage {
    let mut storage = SockAddr::from(SocketAddr::new(address, 0)).as_storage();
    // SAFETY: a socket address storage is what this storage is, on every system that has these options.
    unsafe { *storage.view_as::<libc::sockaddr_storage>() }
}

/// Sets the MD5 key (RFC 2385) for segments to and from a prefix; an empty key removes it.
pub(super) fn md5(socket: &impl AsFd, peer: IpAddr, prefix_length: u8, key: &[u8]) -> io::Result<()> {
    let mut octets = [0; libc::TCP_MD5SIG_MAXKEYLEN];
    let room = octets.get_mut(..key.len()).ok_or_else(|| {
        io::Error::new(io::ErrorKind::InvalidInput, format!("the password has {} octets, TCP MD5 takes 80", key.len()))
    })?;
    room.copy_from_slice(key);
    let signature = TcpMd5Sig {
        address: storage(peer),
        flags: TCP_MD5SIG_FLAG_PREFIX,
        prefix_length,
        key_length: u16::try_from(key.len()).expect("at most 80"),
        interface: 0,
        key: octets,
    };
    match set(socket, libc::IPPROTO_TCP, libc::TCP_MD5SIG_EXT, &signature) {
        Err(e) if key.is_empty() && e.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        result => result,
    }
}

/// linux/tcp.h: adds a TCP-AO key.
const TCP_AO_ADD_KEY: i32 = 38;
const AO_KEY_ROOM: usize = 80;
/// RFC 5926 §3.1: both algorithms sign with 96 bits.
const AO_MAC: u8 = 12;

/// `struct tcp_ao_add` (linux/tcp.h).
#[repr(C, align(8))]
struct TcpAoAdd {
    address: libc::sockaddr_storage,
    algorithm: [u8; 64],
    interface: i32,
    /// Bit 0: send with it; bit 1: ask the peer to send with it.
    flags: u32,
    reserved: u16,
    prefix_length: u8,
    send_id: u8,
    receive_id: u8,
    mac_length: u8,
    key_flags: u8,
    key_length: u8,
    key: [u8; AO_KEY_ROOM],
}

const _: () = assert!(size_of::<TcpAoAdd>() == 288);

/// linux/tcp.h: removes one.
const TCP_AO_DEL_KEY: i32 = 39;

/// `struct tcp_ao_del` (linux/tcp.h).
#[repr(C, align(8))]
struct TcpAoDel {
    address: libc::sockaddr_storage,
    interface: i32,
    flags: u32,
    reserved: u16,
    prefix_length: u8,
    send_id: u8,
    receive_id: u8,
    current_key: u8,
    next_key: u8,
    key_flags: u8,
}

const _: () = assert!(size_of::<TcpAoDel>() == 144);

/// Removes a TCP-AO key that no connection of the socket's own uses; what was accepted before keeps its copy.
pub(super) fn remove_ao(socket: &impl AsFd, peer: IpAddr, prefix_length: u8, key: &AoKey) -> io::Result<()> {
    let del = TcpAoDel {
        address: storage(peer),
        interface: 0,
        flags: 0,
        reserved: 0,
        prefix_length,
        send_id: key.send_id,
        receive_id: key.receive_id,
        current_key: 0,
        next_key: 0,
        key_flags: 0,
    };
    set(socket, libc::IPPROTO_TCP, TCP_AO_DEL_KEY, &del)
}

/// The bits of [`TcpAoAdd::flags`] as the compiler of the kernel lays them out.
const AO_FIRST: u32 = if cfg!(target_endian = "little") { 0b11 } else { 0b11 << 30 };

/// Adds a TCP-AO key (RFC 5925) for segments to and from a prefix. The `first` of a chain is the one that is sent
/// with; a listening socket has none.
pub(super) fn ao(socket: &impl AsFd, peer: IpAddr, prefix_length: u8, key: &AoKey, first: bool) -> io::Result<()> {
    let invalid = |what: String| io::Error::new(io::ErrorKind::InvalidInput, what);
    let mut octets = [0; AO_KEY_ROOM];
    let room = octets.get_mut(..key.key.len()).filter(|room| !room.is_empty());
    let room = room.ok_or_else(|| invalid(format!("a TCP-AO key has 1 to 80 octets, not {}", key.key.len())))?;
    room.copy_from_slice(&key.key);
    let name: &[u8] = match key.algorithm {
        AoAlgorithm::HmacSha1 => b"hmac(sha1)",
        AoAlgorithm::AesCmac => b"cmac(aes128)",
    };
    let mut algorithm = [0; 64];
    algorithm[..name.len()].copy_from_slice(name);
    let add = TcpAoAdd {
        address: storage(peer),
        algorithm,
        interface: 0,
        flags: if first { AO_FIRST } else { 0 },
        reserved: 0,
        prefix_length,
        send_id: key.send_id,
        receive_id: key.receive_id,
        mac_length: AO_MAC,
        key_flags: 0,
        key_length: u8::try_from(key.key.len()).expect("at most 80"),
        key: octets,
    };
    set(socket, libc::IPPROTO_TCP, TCP_AO_ADD_KEY, &add).map_err(|error| match error.raw_os_error() {
        Some(libc::ENOPROTOOPT) => io::Error::new(
            io::ErrorKind::Unsupported,
            "this kernel has no TCP-AO (Linux 6.7 or later with CONFIG_TCP_AO); use such a kernel, or TCP MD5 with a \
             password on both ends",
        ),
        _ => error,
    })
}

/// Drops what arrives with a lower TTL (RFC 5082); 0 takes everything.
pub(super) fn min_ttl(socket: &impl AsFd, peer: IpAddr, ttl: u8) -> io::Result<()> {
    match peer {
        IpAddr::V4(_) => set(socket, libc::IPPROTO_IP, libc::IP_MINTTL, &i32::from(ttl)),
        IpAddr::V6(_) => set(socket, libc::IPPROTO_IPV6, libc::IPV6_MINHOPCOUNT, &i32::from(ttl)),
    }
}

/// The index of an interface.
pub(super) fn interface_index(name: &str) -> io::Result<u32> {
    let invalid = |e| io::Error::new(io::ErrorKind::InvalidInput, e);
    let name = std::ffi::CString::new(name).map_err(invalid)?;
    // SAFETY: `name` is a live, terminated string.
    match unsafe { libc::if_nametoindex(name.as_ptr()) } {
        0 => Err(io::Error::last_os_error()),
        index => Ok(index),
    }
}

/// One address of an interface of this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Local {
    pub(super) interface: String,
    pub(super) address: IpAddr,
    pub(super) prefix_length: u8,
}

/// Every address of this host.
pub(super) fn addresses() -> io::Result<Vec<Local>> {
    let mut first = std::ptr::null_mut();
    // SAFETY: the kernel's list is written to `first`, which outlives the call.
    if unsafe { libc::getifaddrs(&raw mut first) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let mut found = Vec::new();
    let mut next = first;
    // SAFETY: a non-null entry of the list is valid until `freeifaddrs`.
    while let Some(entry) = unsafe { next.as_ref() } {
        // SAFETY: the addresses of an entry are null or as long as their family says.
        let (address, mask) = unsafe { (address(entry.ifa_addr), address(entry.ifa_netmask)) };
        if let (Some(address), Some(mask)) = (address, mask) {
            // SAFETY: the name of an entry is a terminated string.
            let interface = unsafe { CStr::from_ptr(entry.ifa_name) }.to_string_lossy().into_owned();
            found.push(Local { interface, address, prefix_length: length(mask) });
        }
        next = entry.ifa_next;
    }
    // SAFETY: `first` came from `getifaddrs` and nothing of the list is used after this.
    unsafe { libc::freeifaddrs(first) };
    Ok(found)
}

fn length(mask: IpAddr) -> u8 {
    let ones = match mask {
        IpAddr::V4(mask) => mask.to_bits().leading_ones(),
        IpAddr::V6(mask) => mask.to_bits().leading_ones(),
    };
    u8::try_from(ones).expect("at most 128")
}

/// # Safety
/// `address` is null or points to a socket address as long as its family says.
unsafe fn address(address: *const libc::sockaddr) -> Option<IpAddr> {
    // SAFETY: as the caller promises; both casts follow the family, the reads allow any alignment.
    unsafe {
        match i32::from(address.as_ref()?.sa_family) {
            libc::AF_INET => {
                let address = address.cast::<libc::sockaddr_in>().read_unaligned();
                Some(Ipv4Addr::from(u32::from_be(address.sin_addr.s_addr)).into())
            }
            libc::AF_INET6 => {
                let address = address.cast::<libc::sockaddr_in6>().read_unaligned();
                Some(Ipv6Addr::from(address.sin6_addr.s6_addr).into())
            }
            _ => None,
        }
    }
}

/// The socket address of a peer, with the scope of its interface where it is link-local.
pub(super) fn scoped(address: IpAddr, port: u16, interface: Option<&str>) -> io::Result<SocketAddr> {
    Ok(match (address, interface) {
        (IpAddr::V4(address), _) => SocketAddrV4::new(address, port).into(),
        (IpAddr::V6(address), Some(interface)) if address.is_unicast_link_local() => {
            SocketAddrV6::new(address, port, 0, interface_index(interface)?).into()
        }
        (IpAddr::V6(address), _) => SocketAddrV6::new(address, port, 0, 0).into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_among_the_addresses_of_this_host() {
        let all = addresses().expect("getifaddrs");
        let lo = Local { interface: "lo".into(), address: Ipv4Addr::LOCALHOST.into(), prefix_length: 8 };
        assert!(all.contains(&lo), "{all:?}");
    }

    fn socket() -> socket2::Socket {
        socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("socket")
    }

    #[test]
    fn tcp_ao_key_is_taken_or_the_kernel_that_has_none_is_named() {
        let key =
            |octets: &[u8]| AoKey { send_id: 1, receive_id: 2, algorithm: AoAlgorithm::HmacSha1, key: octets.into() };
        let peer = Ipv4Addr::LOCALHOST.into();
        match ao(&socket(), peer, 32, &key(b"secret"), true) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::Unsupported => assert!(e.to_string().contains("CONFIG_TCP_AO"), "{e}"),
            Err(e) => panic!("{e}"),
        }
        for octets in [&[][..], &[1; 81]] {
            let error = ao(&socket(), peer, 32, &key(octets), true).expect_err("no key");
            assert!(error.to_string().contains("1 to 80 octets"), "{error}");
        }
    }

    #[test]
    fn key_of_81_octets_is_refused_before_the_kernel_sees_it() {
        let error = md5(&socket(), Ipv4Addr::LOCALHOST.into(), 32, &[b'x'; 81]).expect_err("too long");
        assert!(error.to_string().contains("81 octets"), "{error}");
    }
}
