//! OPEN (RFC 4271 §4.2) and its optional parameters, extended ones included (RFC 9072).

use std::net::Ipv4Addr;

use nom::{
    IResult, Parser,
    bytes::complete::take,
    multi::{length_data, length_value},
    number::complete::{be_u8, be_u16, be_u32},
};

use super::{
    DecodeError, ErrorKind,
    capability::Capabilities,
    message::{self, HEADER, Kind},
};
use crate::{Asn, HoldTime, RouterId};

/// The optional parameter that holds capabilities (RFC 5492 §4).
const CAPABILITIES: u8 = 2;
/// The type that says that lengths have two octets (RFC 9072 §2).
const EXTENDED: u8 = 255;

/// An OPEN.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Open {
    /// The AS: of the four-octet capability where there is one, of the header's field elsewhere.
    pub asn: Asn,
    /// The hold time that is offered.
    pub hold_time: HoldTime,
    /// The BGP identifier.
    pub id: RouterId,
    /// What the speaker can do.
    pub capabilities: Capabilities,
}

type Part<'a, T> = IResult<&'a [u8], T>;

/// Reads the OPEN in `octets`, header included.
pub fn decode(octets: &[u8]) -> Result<Open, DecodeError> {
    let fail = |offset, kind| DecodeError { offset, kind };
    let cut = |e: nom::Err<nom::error::Error<&[u8]>>| {
        let offset = match e {
            nom::Err::Error(e) | nom::Err::Failure(e) => nom::Offset::offset(octets, e.input),
            nom::Err::Incomplete(_) => octets.len(),
        };
        fail(offset, ErrorKind::OpenTruncated)
    };
    let (rest, (version, asn, hold_time, id)) = fixed(&octets[HEADER..]).map_err(cut)?;
    if version != 4 {
        return Err(fail(19, ErrorKind::Version(version)));
    }
    let (extended, list) = parameters(rest).map_err(cut)?.1;
    let mut capabilities = Capabilities::default();
    let mut rest = list;
    while !rest.is_empty() {
        let (tail, (kind, value)) = parameter(rest, extended).map_err(cut)?;
        if kind != CAPABILITIES {
            return Err(fail(nom::Offset::offset(octets, rest), ErrorKind::Parameter(kind)));
        }
        read_capabilities(value, &mut capabilities).map_err(cut)?;
        rest = tail;
    }
    let asn = Asn::new(capabilities.four_octet_as.unwrap_or(asn.into()));
    Ok(Open {
        asn: asn.map_err(|_| fail(20, ErrorKind::AsZero))?,
        hold_time: HoldTime::new(hold_time).map_err(|_| fail(22, ErrorKind::HoldTime(hold_time)))?,
        id: RouterId::new(Ipv4Addr::from(id)).map_err(|_| fail(24, ErrorKind::Identifier))?,
        capabilities,
    })
}

fn fixed(input: &[u8]) -> Part<'_, (u8, u16, u16, u32)> {
    (be_u8, be_u16, be_u16, be_u32).parse(input)
}

/// The list of parameters, which fills the message to its end, and whether its lengths have two octets. The
/// type octet decides, whatever the plain length says (RFC 9072 §2).
fn parameters(input: &[u8]) -> Part<'_, (bool, &[u8])> {
    let (rest, length) = be_u8(input)?;
    let extended = length != 0 && rest.first() == Some(&EXTENDED);
    let (end, list) =
        if extended { length_data(be_u16).parse(&rest[1..])? } else { take(usize::from(length)).parse(rest)? };
    if end.is_empty() {
        Ok((end, (extended, list)))
    } else {
        Err(nom::Err::Error(nom::error::Error::new(end, nom::error::ErrorKind::Eof)))
    }
}

fn parameter(input: &[u8], extended: bool) -> Part<'_, (u8, &[u8])> {
    if extended { (be_u8, length_data(be_u16)).parse(input) } else { (be_u8, length_data(be_u8)).parse(input) }
}

fn read_capabilities<'a>(
    mut list: &'a [u8],
    capabilities: &mut Capabilities,
) -> Result<(), nom::Err<nom::error::Error<&'a [u8]>>> {
    while !list.is_empty() {
        let (rest, (code, value)) = (be_u8, length_value(be_u8, nom::combinator::rest)).parse(list)?;
        capabilities.read(code, value);
        list = rest;
    }
    Ok(())
}

impl Open {
    /// Appends the message. Capabilities travel in one parameter, extended where they need it.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let start = message::start(out, Kind::Open);
        out.push(4);
        out.extend_from_slice(&self.asn.two_octet().to_be_bytes());
        out.extend_from_slice(&self.hold_time.seconds().to_be_bytes());
        out.extend_from_slice(&self.id.addr().octets());
        let mut list = Vec::new();
        self.capabilities.write(&mut list);
        write_capabilities(&list, out);
        message::finish(out, start);
    }
}

/// Appends the optional parameters: a list of capabilities in the plain form, or in the extended one where a
/// plain length cannot say it (RFC 9072 §2).
fn write_capabilities(list: &[u8], out: &mut Vec<u8>) {
    match u8::try_from(list.len() + 2) {
        Ok(_) if list.is_empty() => out.push(0),
        Ok(length) if length < 255 => out.extend_from_slice(&[length, CAPABILITIES, length - 2]),
        _ => {
            let length = u16::try_from(list.len()).expect("our own capabilities are few");
            out.extend_from_slice(&[255, EXTENDED]);
            out.extend_from_slice(&(length + 3).to_be_bytes());
            out.push(CAPABILITIES);
            out.extend_from_slice(&length.to_be_bytes());
        }
    }
    out.extend_from_slice(list);
}

#[cfg(test)]
mod tests;
