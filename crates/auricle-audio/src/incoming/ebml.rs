//! Heads and bodies of EBML elements: what WebM is made of. Source: RFC 8794, sections 4 to 6.

use super::IncomingError;

/// What an element's beginning says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    /// With its length marker, as the tables of elements have it.
    pub(super) id: u32,
    /// Bytes of its body; none if its writer did not know.
    pub(super) size: Option<u64>,
    /// Bytes of the head itself.
    pub(super) length: usize,
}

/// Bytes of an identifier at most.
const ID_BYTES_MAX: usize = 4;

/// The first `length` bytes as a number.
fn big_endian(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |number, byte| (number << 8) | u64::from(*byte))
}

/// How many bytes a number of variable length has, by its first one.
fn length_of(first: u8) -> usize {
    first.leading_zeros() as usize + 1
}

/// A number of variable length without its marker, and its length. `Some(None, _)`: all of its bits are set, which says "not known".
fn number(bytes: &[u8]) -> Result<Option<(Option<u64>, usize)>, IncomingError> {
    let Some(first) = bytes.first() else { return Ok(None) };
    let length = length_of(*first);
    if length > 8 {
        return Err(IncomingError::Damaged("a WebM element has a size of more than 8 bytes"));
    }
    let Some(whole) = bytes.get(..length) else { return Ok(None) };
    let ones = (1_u64 << (7 * length)) - 1;
    let value = big_endian(whole) & ones;
    Ok(Some(((value != ones).then_some(value), length)))
}

/// A number of variable length that is known, and its length. None while some of it is missing.
pub(super) fn known_number(bytes: &[u8]) -> Result<Option<(u64, usize)>, IncomingError> {
    Ok(match number(bytes)? {
        Some((Some(value), length)) => Some((value, length)),
        Some((None, _)) => return Err(IncomingError::Damaged("a WebM block names no track")),
        None => None,
    })
}

/// The head that `bytes` begin with. None while some of it is missing.
pub(super) fn head(bytes: &[u8]) -> Result<Option<Head>, IncomingError> {
    let Some(first) = bytes.first() else { return Ok(None) };
    let id_length = length_of(*first);
    if id_length > ID_BYTES_MAX {
        return Err(IncomingError::Damaged("a WebM element is expected and does not come"));
    }
    let Some(id) = bytes.get(..id_length) else { return Ok(None) };
    let found = number(&bytes[id_length..])?;
    Ok(found.map(|(size, length)| Head { id: big_endian(id) as u32, size, length: id_length + length }))
}

/// The elements of a body that is there as a whole: identifiers and bodies.
pub(super) fn children(mut body: &[u8]) -> impl Iterator<Item = Result<(u32, &[u8]), IncomingError>> {
    std::iter::from_fn(move || {
        if body.is_empty() {
            return None;
        }
        let child = match head(body) {
            Ok(Some(Head { id, size: Some(size), length })) => {
                let end = usize::try_from(size).ok().and_then(|size| size.checked_add(length));
                end.and_then(|end| Some((id, body.get(length..end)?, body.get(end..)?)))
            }
            Ok(_) => None,
            Err(error) => {
                body = &[];
                return Some(Err(error));
            }
        };
        let Some((id, inner, rest)) = child else {
            body = &[];
            return Some(Err(IncomingError::Damaged("a WebM element is longer than the one around it")));
        };
        body = rest;
        Some(Ok((id, inner)))
    })
}

/// The body of an unsigned number.
pub(super) fn unsigned(body: &[u8]) -> u64 {
    // Eight bytes at most in good streams; of others the last eight count.
    big_endian(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_read_once_they_are_whole() {
        let bytes = [0x1a, 0x45, 0xdf, 0xa3, 0x40, 0x02, 0xff];
        for short in 0..6 {
            assert_eq!(head(&bytes[..short]).unwrap(), None, "{short}");
        }
        assert_eq!(head(&bytes).unwrap(), Some(Head { id: 0x1a45_dfa3, size: Some(2), length: 6 }));
        assert_eq!(head(&[0xa3, 0xff]).unwrap(), Some(Head { id: 0xa3, size: None, length: 2 }));
        let unknown = [0x1f, 0x43, 0xb6, 0x75, 1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
        assert_eq!(head(&unknown).unwrap().unwrap().size, None);
        let longest = [0xec, 1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfe];
        assert_eq!(head(&longest).unwrap().unwrap().size, Some((1 << 56) - 2));
        assert!(head(&[0x00]).is_err() && head(&[0x08]).is_err() && head(&[0xec, 0x00]).is_err());
    }

    #[test]
    fn children_end_with_the_body_or_an_error() {
        let ids = |body: &[u8]| children(body).map(|child| child.map(|(id, _)| id)).collect::<Vec<_>>();
        assert_eq!(ids(&[0xd7, 0x81, 7, 0x83, 0x80]), [Ok(0xd7), Ok(0x83)]);
        for bad in
            [&[0xd7, 0x82, 7][..], &[0xd7], &[0xd7, 0xff, 7], &[0xd7, 1, 255, 255, 255, 255, 255, 255, 254]]
        {
            assert!(matches!(ids(bad)[..], [Err(IncomingError::Damaged(_))]), "{bad:?}");
        }
        assert_eq!(unsigned(&[1, 2]), 258);
    }
}
