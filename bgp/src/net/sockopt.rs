//! Socket options that no safe crate offers, and the addresses of this host. The only unsafe code of the crate.

#![allow(unsafe_code)]

use std::{
    ffi::CStr,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6},
    os::fd::{AsFd, AsRawFd},
};

use socket2::SockAddr;

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

/// Sets the MD5 key (RFC 2385) for segments to and from a prefix; an empty key removes it.
pub(super) fn md5(socket: &impl AsFd, peer: IpAddr, prefix_length: u8, key: &[u8]) -> io::Result<()> {
    let mut octets = [0; libc::TCP_MD5SIG_MAXKEYLEN];
    let room = octets.get_mut(..key.len()).ok_or_else(|| {
        io::Error::new(io::ErrorKind::InvalidInput, format!("the password has {} octets, TCP MD5 takes 80", key.len()))
    })?;
    room.copy_from_slice(key);
    let mut storage = SockAddr::from(SocketAddr::new(peer, 0)).as_storage();
    let signature = TcpMd5Sig {
        // SAFETY: a socket address storage is what this storage is, on every system that has this option.
        address: unsafe { *storage.view_as::<libc::sockaddr_storage>() },
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

    #[test]
    fn key_of_81_octets_is_refused_before_the_kernel_sees_it() {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("socket");
        let error = md5(&socket, Ipv4Addr::LOCALHOST.into(), 32, &[b'x'; 81]).expect_err("too long");
        assert!(error.to_string().contains("81 octets"), "{error}");
    }
}
