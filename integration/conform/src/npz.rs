//! `.npz`: a zip archive of `.npy` files, stored or deflated.
//!
//! Only what numpy writes is read: no encryption, no archive above 4 GiB.
use std::io::Read;

use flate2::{Crc, read::DeflateDecoder};

/// The end of an archive's directory, and its length without the comment behind it.
const END: &[u8] = b"PK\x05\x06";
const END_LEN: usize = 22;
/// An entry of the directory.
const ENTRY: &[u8] = b"PK\x01\x02";
const ENTRY_LEN: usize = 46;
/// What stands in front of a file.
const FILE: &[u8] = b"PK\x03\x04";
const FILE_LEN: usize = 30;

const STORED: usize = 0;
const DEFLATED: usize = 8;

/// An archive and its directory.
#[derive(Debug)]
pub(crate) struct Npz {
    bytes: Vec<u8>,
    entries: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    /// Without `.npy`.
    name: String,
    method: usize,
    crc: u32,
    packed: usize,
    size: usize,
    offset: usize,
}

impl Npz {
    pub(crate) fn open(bytes: Vec<u8>) -> Result<Self, String> {
        let entries = directory(&bytes).ok_or(
            "is no whole zip archive: the directory at its end is missing or broken".to_owned(),
        )?;
        Ok(Self { bytes, entries })
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.iter().map(|entry| entry.name.as_str())
    }

    /// The bytes of an array's file.
    pub(crate) fn get(&self, name: &str) -> Result<Vec<u8>, String> {
        let named = |entry: &&Entry| entry.name == name;
        let entry = self.entries.iter().find(named).ok_or("is missing")?;
        let packed = self.packed(entry).ok_or("is cut off")?;
        let mut file = Vec::new();
        match entry.method {
            STORED => file.extend_from_slice(packed),
            DEFLATED => {
                let most = u64::try_from(entry.size).unwrap_or(u64::MAX);
                let mut inflated = DeflateDecoder::new(packed).take(most);
                let broken = |error| format!("cannot be inflated: {error}");
                inflated.read_to_end(&mut file).map_err(broken)?;
            }
            other => {
                return Err(format!(
                    "is packed by method {other}, not stored or deflated"
                ));
            }
        }
        let mut crc = Crc::new();
        crc.update(&file);
        if file.len() == entry.size && crc.sum() == entry.crc {
            Ok(file)
        } else {
            Err("is damaged: its checksum or its length is wrong".into())
        }
    }

    fn packed(&self, entry: &Entry) -> Option<&[u8]> {
        let header = self.bytes.get(entry.offset..)?;
        let lengths = number(header, 26, 2)? + number(header, 28, 2)?;
        if !header.starts_with(FILE) {
            return None;
        }
        header.get(FILE_LEN + lengths..)?.get(..entry.packed)
    }
}

fn directory(bytes: &[u8]) -> Option<Vec<Entry>> {
    let last = bytes.len().checked_sub(END_LEN)?;
    // A comment of up to 64 KiB may stand behind the directory.
    let first = last.saturating_sub(usize::from(u16::MAX));
    let end = (first..=last)
        .rev()
        .find(|&at| bytes[at..].starts_with(END))?;
    let count = number(bytes, end + 10, 2)?;
    let mut at = number(bytes, end + 16, 4)?;
    let mut entries = Vec::with_capacity(count);
    for _ in 0..count {
        let header = bytes.get(at..)?;
        if !header.starts_with(ENTRY) {
            return None;
        }
        let name_len = number(header, 28, 2)?;
        let name = String::from_utf8_lossy(header.get(ENTRY_LEN..ENTRY_LEN + name_len)?);
        entries.push(Entry {
            name: name.strip_suffix(".npy").unwrap_or(&name).to_owned(),
            method: number(header, 10, 2)?,
            crc: u32::try_from(number(header, 16, 4)?).ok()?,
            packed: number(header, 20, 4)?,
            size: number(header, 24, 4)?,
            offset: number(header, 42, 4)?,
        });
        at += ENTRY_LEN + name_len + number(header, 30, 2)? + number(header, 32, 2)?;
    }
    Some(entries)
}

/// A little-endian number of `len` bytes.
fn number(bytes: &[u8], at: usize, len: usize) -> Option<usize> {
    let digits = bytes.get(at..at.checked_add(len)?)?;
    let add = |sum: usize, &digit: &u8| sum << 8 | usize::from(digit);
    Some(digits.iter().rev().fold(0, add))
}
