//! The members of a zip archive, read from its directory.
//!
//! A reader of our own: of the `zip` crate only this part would be used, and what is needed here (names that occur once, members that do
//! not overlap, sizes held to a budget before anything is inflated, stored members lent and not copied) would have to be built around it.
//! Reference: APPNOTE.TXT 6.3.10 of PKWARE, §4.3.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::Read;
use std::ops::Range;

use flate2::Crc;
use flate2::read::DeflateDecoder;

use crate::limits::{Budget, MAX_MEMBERS, OverBudget};

/// What is wrong with an archive.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ArchiveError {
    /// The directory is at the end, which is missing.
    #[error("the archive has no directory at its end: it is cut off, fetch or copy it again")]
    NoDirectory,
    /// A field that points out of the file, or bytes that are not what they should be.
    #[error("the archive is damaged: {what} at byte {at}")]
    Damaged {
        /// What is not as it should be.
        what: &'static str,
        /// Where.
        at: usize,
    },
    /// More members than any checkpoint has.
    #[error("the archive claims {members} members, expected at most {most}")]
    TooMany {
        /// How many.
        members: u64,
        /// The limit.
        most: u64,
    },
    /// Two members of a name, or two in the same place.
    #[error(
        "the archive's members '{first}' and '{second}' {how}; it is damaged or made to do harm"
    )]
    Clash {
        /// One of them.
        first: String,
        /// The other.
        second: String,
        /// What they do.
        how: &'static str,
    },
    /// A member that is encrypted, or compressed in a way that PyTorch never uses.
    #[error("the archive's member '{name}' is {how}; pack it again without")]
    Method {
        /// Its name.
        name: String,
        /// How it is packed.
        how: String,
    },
    /// A member whose bytes are not those that were packed.
    #[error("the archive's member '{name}' {problem}: the file is damaged, fetch or copy it again")]
    Member {
        /// Its name.
        name: String,
        /// What is wrong.
        problem: String,
    },
    /// No such member.
    #[error("the archive has no member '{name}'; it is incomplete")]
    Missing {
        /// The name.
        name: String,
    },
    /// An archive that inflates to more than it may.
    #[error(transparent)]
    OverBudget(#[from] OverBudget),
}

/// Where a member lies and how it is packed.
#[derive(Debug)]
struct Member {
    /// Where its own header begins.
    header: usize,
    data: Range<usize>,
    size: usize,
    deflated: bool,
    crc: u32,
}

/// An archive and its directory.
#[derive(Debug)]
pub(crate) struct Archive<'a> {
    bytes: &'a [u8],
    members: BTreeMap<&'a str, Member>,
}

const DIRECTORY_END: u32 = 0x0605_4b50;
const DIRECTORY_END_64: u32 = 0x0606_4b50;
const LOCATOR_64: u32 = 0x0706_4b50;
const ENTRY: u32 = 0x0201_4b50;
const LOCAL: u32 = 0x0403_4b50;

/// Bytes of the record at the end, without its comment.
const END_SIZE: usize = 22;

/// Numbers at places of a file.
#[derive(Clone, Copy)]
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn at<const N: usize>(self, at: usize) -> Result<[u8; N], ArchiveError> {
        self.part(at, N)?.try_into().map_err(|_| damaged("a field is cut off", at))
    }

    fn part(self, at: usize, length: usize) -> Result<&'a [u8], ArchiveError> {
        let part = at.checked_add(length).and_then(|end| self.0.get(at..end));
        part.ok_or_else(|| damaged("a field is cut off", at))
    }

    fn u16(self, at: usize) -> Result<usize, ArchiveError> {
        Ok(u16::from_le_bytes(self.at(at)?).into())
    }

    fn u32(self, at: usize) -> Result<u32, ArchiveError> {
        Ok(u32::from_le_bytes(self.at(at)?))
    }

    fn u64(self, at: usize) -> Result<u64, ArchiveError> {
        Ok(u64::from_le_bytes(self.at(at)?))
    }
}

fn damaged(what: &'static str, at: usize) -> ArchiveError {
    ArchiveError::Damaged { what, at }
}

fn place(value: u64, what: &'static str, at: usize) -> Result<usize, ArchiveError> {
    usize::try_from(value).map_err(|_| damaged(what, at))
}

impl<'a> Archive<'a> {
    /// Reads the directory.
    pub(crate) fn open(bytes: &'a [u8]) -> Result<Self, ArchiveError> {
        let file = Fields(bytes);
        let end = directory_end(file)?;
        let mut count = file.u16(end + 10)? as u64;
        let mut start = u64::from(file.u32(end + 16)?);
        let locator = end.checked_sub(20);
        if let Some(at) = locator.filter(|at| file.u32(*at).is_ok_and(|mark| mark == LOCATOR_64)) {
            let wide = place(file.u64(at + 8)?, "the directory's end", at)?;
            if file.u32(wide)? != DIRECTORY_END_64 {
                return Err(damaged("the directory's end is not where it should be", wide));
            }
            count = file.u64(wide + 32)?;
            start = file.u64(wide + 48)?;
        }
        if count > MAX_MEMBERS {
            return Err(ArchiveError::TooMany { members: count, most: MAX_MEMBERS });
        }
        let start = place(start, "the directory", end)?;
        let (mut at, mut members) = (start, BTreeMap::new());
        for _ in 0..count {
            let (name, member, next) = entry(file, at, start)?;
            if members.insert(name, member).is_some() {
                return Err(clash(name, name, "have the same name"));
            }
            at = next;
        }
        if at > end {
            return Err(damaged("the directory reaches beyond its end", at));
        }
        let mut places: Vec<_> =
            members.iter().map(|(name, member)| (member.header..member.data.end, *name)).collect();
        places.sort_by_key(|(place, _)| (place.start, place.end));
        for pair in places.windows(2) {
            if pair[0].0.end > pair[1].0.start {
                return Err(clash(pair[0].1, pair[1].1, "overlap"));
            }
        }
        Ok(Self { bytes, members })
    }

    /// The names of all members, sorted.
    pub(crate) fn names(&self) -> impl Iterator<Item = &'a str> + '_ {
        self.members.keys().copied()
    }

    /// Whether there is a member of that name.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.members.contains_key(name)
    }

    /// The bytes of a member.
    pub(crate) fn read(&self, name: &str, budget: &Budget) -> Result<Cow<'a, [u8]>, ArchiveError> {
        let missing = || ArchiveError::Missing { name: name.into() };
        let member = self.members.get(name).ok_or_else(missing)?;
        let wrong =
            |problem: &str| ArchiveError::Member { name: name.into(), problem: problem.into() };
        let packed = self.bytes.get(member.data.clone()).ok_or_else(|| wrong("is cut off"))?;
        let contents = if member.deflated {
            budget.take(member.size)?;
            let mut inflated = Vec::new();
            // One byte more than it should have, to see whether there is one.
            let most = (member.size as u64).saturating_add(1);
            let read = DeflateDecoder::new(packed).take(most).read_to_end(&mut inflated);
            read.map_err(|error| wrong(&format!("does not inflate ({error})")))?;
            Cow::Owned(inflated)
        } else {
            Cow::Borrowed(packed)
        };
        if contents.len() != member.size {
            return Err(wrong(&format!("does not have the {} bytes that it claims", member.size)));
        }
        let mut crc = Crc::new();
        crc.update(&contents);
        // PyTorch writes 0 where it was told not to compute sums.
        if member.crc != 0 && crc.sum() != member.crc {
            return Err(wrong("has another CRC-32 than when it was packed"));
        }
        Ok(contents)
    }
}

fn clash(first: &str, second: &str, how: &'static str) -> ArchiveError {
    ArchiveError::Clash { first: first.into(), second: second.into(), how }
}

/// Where the record at the end begins: behind it there is only a comment of the length that it says.
fn directory_end(file: Fields<'_>) -> Result<usize, ArchiveError> {
    let last = file.0.len().checked_sub(END_SIZE).ok_or(ArchiveError::NoDirectory)?;
    let first = last.saturating_sub(usize::from(u16::MAX));
    let is_end = |at: &usize| {
        file.u32(*at).is_ok_and(|mark| mark == DIRECTORY_END)
            && file.u16(at + 20).is_ok_and(|comment| at + END_SIZE + comment == file.0.len())
    };
    (first..=last).rev().find(is_end).ok_or(ArchiveError::NoDirectory)
}

/// The entry of the directory at `at`, and where the next one begins. Members lie in front of the directory, which begins at `start`.
fn entry<'a>(
    file: Fields<'a>,
    at: usize,
    start: usize,
) -> Result<(&'a str, Member, usize), ArchiveError> {
    if file.u32(at)? != ENTRY {
        return Err(damaged("no entry of the directory", at));
    }
    let (flags, method, crc) = (file.u16(at + 8)?, file.u16(at + 10)?, file.u32(at + 16)?);
    let [name_size, extra_size, comment] =
        [file.u16(at + 28)?, file.u16(at + 30)?, file.u16(at + 32)?];
    let name = file.part(at + 46, name_size)?;
    let name = std::str::from_utf8(name).map_err(|_| damaged("a name is not UTF-8", at))?;
    let extra = file.part(at + 46 + name_size, extra_size)?;
    let mut wide = wide_fields(extra);
    let mut number = |at| -> Result<usize, ArchiveError> {
        match file.u32(at)? {
            u32::MAX => {
                let (value, rest) = wide
                    .split_first_chunk()
                    .ok_or_else(|| damaged("a 64-bit size is missing", at))?;
                wide = rest;
                place(u64::from_le_bytes(*value), "a size", at)
            }
            value => Ok(value as usize),
        }
    };
    let (size, packed, local) = (number(at + 24)?, number(at + 20)?, number(at + 42)?);
    let method_error = |how: &str| ArchiveError::Method { name: name.into(), how: how.into() };
    if flags & 1 != 0 {
        return Err(method_error("encrypted"));
    }
    let deflated = match method {
        0 => false,
        8 => true,
        other => return Err(method_error(&format!("compressed by method {other}"))),
    };
    if !deflated && size != packed {
        return Err(damaged("a stored member has two sizes", at));
    }
    if file.u32(local)? != LOCAL {
        return Err(damaged("no member where the directory says", local));
    }
    let [own_name, own_extra] = [file.u16(local + 26)?, file.u16(local + 28)?];
    if file.part(local + 30, own_name)? != name.as_bytes() {
        return Err(damaged("a member and the directory disagree on its name", local));
    }
    let data = local + 30 + own_name + own_extra;
    let end = data.checked_add(packed).filter(|end| *end <= start);
    let end = end.ok_or_else(|| damaged("a member reaches beyond the directory", local))?;
    let member = Member { header: local, data: data..end, size, deflated, crc };
    Ok((name, member, at + 46 + name_size + extra_size + comment))
}

/// The field of an entry that holds sizes of 64 bits.
fn wide_fields(mut extra: &[u8]) -> &[u8] {
    while let [a, b, c, d, rest @ ..] = extra {
        let (id, size) = (u16::from_le_bytes([*a, *b]), u16::from_le_bytes([*c, *d]).into());
        let Some((field, others)) = rest.split_at_checked(size) else { break };
        if id == 1 {
            return field;
        }
        extra = others;
    }
    &[]
}
