//! Frames: how questions and answers are written.
use std::io::{self, BufRead, BufReader, Read, Write};

use serde::{Serialize, de::DeserializeOwned};

const MAGIC: &[u8; 4] = b"kvpf";
/// Most bytes of a JSON text.
const LONGEST: u64 = 1 << 28;
/// Most bytes that are allocated before they come.
const MOST_AHEAD: u64 = 1 << 26;

/// A frame as it was read.
#[derive(Debug)]
pub(crate) struct Frame {
    json: Vec<u8>,
    numbers: Vec<u8>,
}

/// Why there is no frame.
#[derive(Debug)]
pub(crate) enum NoFrame {
    /// The other side is gone.
    Ended,
    /// What was read instead, in words.
    Garbage(String),
}

impl From<io::Error> for NoFrame {
    fn from(_: io::Error) -> Self {
        Self::Ended
    }
}

/// Numbers of 4 bytes each, one after the other.
#[derive(Debug, Default)]
pub(crate) struct Numbers(Vec<u8>);

impl Numbers {
    pub(crate) fn floats(&mut self, floats: &[f32]) {
        self.words(floats.iter().map(|float| float.to_le_bytes()));
    }

    pub(crate) fn words(&mut self, words: impl Iterator<Item = [u8; 4]>) {
        self.0.reserve(4 * words.size_hint().0);
        for word in words {
            self.0.extend_from_slice(&word);
        }
    }
}

/// The numbers of a frame, which are taken one after the other.
#[derive(Debug)]
pub(crate) struct Taken<'f>(&'f [u8]);

impl Taken<'_> {
    /// The next `count` numbers, or `None` if there are fewer.
    pub(crate) fn words<T>(&mut self, count: usize, number: fn([u8; 4]) -> T) -> Option<Vec<T>> {
        let (now, rest) = self.0.split_at_checked(count.checked_mul(4)?)?;
        self.0 = rest;
        let words = now.as_chunks().0;
        Some(words.iter().map(|word| number(*word)).collect())
    }

    pub(crate) fn floats(&mut self, count: usize) -> Option<Vec<f32>> {
        self.words(count, f32::from_le_bytes)
    }

    /// The next numbers in rows of `lens`.
    pub(crate) fn rows<T>(
        &mut self,
        lens: &[usize],
        number: fn([u8; 4]) -> T,
    ) -> Option<Vec<Vec<T>>> {
        lens.iter().map(|&len| self.words(len, number)).collect()
    }

    /// Whether all numbers were taken.
    pub(crate) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// A frame as bytes.
pub(crate) fn frame(message: &impl Serialize, numbers: &Numbers) -> io::Result<Vec<u8>> {
    let json = serde_json::to_vec(message)?;
    let length = u32::try_from(json.len()).map_err(io::Error::other)?;
    let mut bytes = Vec::with_capacity(16 + json.len() + numbers.0.len());
    bytes.extend(MAGIC);
    bytes.extend(length.to_le_bytes());
    bytes.extend((numbers.0.len() as u64).to_le_bytes());
    bytes.extend(json);
    bytes.extend(&numbers.0);
    Ok(bytes)
}

pub(crate) fn write(out: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
    out.write_all(bytes)?;
    out.flush()
}

impl Frame {
    /// The next frame, with at most `most` bytes of numbers. Whatever is announced, not much more is allocated than comes.
    pub(crate) fn read(from: &mut BufReader<impl Read>, most: u64) -> Result<Self, NoFrame> {
        let start = some(from, MAGIC.len() as u64)?;
        if start.is_empty() {
            return Err(NoFrame::Ended);
        }
        if start != MAGIC {
            // What has come with it is there already; to wait for more could be to wait for good.
            let seen = [start.as_slice(), from.buffer()].concat();
            return Err(NoFrame::Garbage(quoted(&seen)));
        }
        let (mut json, mut numbers) = ([0; 4], [0; 8]);
        from.read_exact(&mut json)?;
        from.read_exact(&mut numbers)?;
        let (json, numbers) = (
            u64::from(u32::from_le_bytes(json)),
            u64::from_le_bytes(numbers),
        );
        for (length, most) in [(json, LONGEST), (numbers, most)] {
            if length > most {
                return Err(NoFrame::Garbage(format!(
                    "an answer of {length} bytes (at most {most} are read)"
                )));
            }
        }
        let frame = Self {
            json: some(from, json)?,
            numbers: some(from, numbers)?,
        };
        if (frame.json.len() as u64, frame.numbers.len() as u64) == (json, numbers) {
            Ok(frame)
        } else {
            Err(NoFrame::Ended)
        }
    }

    /// The message in it.
    pub(crate) fn message<T: DeserializeOwned>(&self) -> Result<T, String> {
        serde_json::from_slice(&self.json)
            .map_err(|error| format!("{} ({error})", quoted(&self.json)))
    }

    /// Its numbers.
    pub(crate) fn numbers(&self) -> Taken<'_> {
        Taken(&self.numbers)
    }
}

/// At most `length` bytes: fewer where the other side ends.
fn some(from: &mut impl BufRead, length: u64) -> io::Result<Vec<u8>> {
    let ahead = length.min(MOST_AHEAD);
    let mut bytes = Vec::with_capacity(usize::try_from(ahead).unwrap_or(0));
    from.take(length).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn quoted(bytes: &[u8]) -> String {
    kv_core::ProfileFile::quoted(&String::from_utf8_lossy(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames(bytes: &[u8], most: u64) -> Result<Frame, NoFrame> {
        Frame::read(&mut BufReader::new(bytes), most)
    }

    #[test]
    fn a_frame_is_read_to_the_last_bit() {
        let floats = [0.1, f32::NAN, f32::NEG_INFINITY, -0.0];
        let mut numbers = Numbers::default();
        numbers.floats(&floats);
        numbers.words([7_u32.to_le_bytes()].into_iter());
        let bytes = frame(&["a"], &numbers).expect("fits");
        let read = frames(&bytes, 20).expect("a frame");
        assert_eq!(read.message::<Vec<String>>(), Ok(vec!["a".to_owned()]));
        let mut taken = read.numbers();
        let back = taken.floats(4).expect("four");
        assert!(
            back.iter()
                .zip(floats)
                .all(|(a, b)| a.to_bits() == b.to_bits())
        );
        assert_eq!(taken.words(2, u32::from_le_bytes), None);
        assert_eq!(taken.words(usize::MAX, u32::from_le_bytes), None);
        assert_eq!(
            taken.rows(&[1, 0], u32::from_le_bytes),
            Some(vec![vec![7], vec![]])
        );
        assert!(taken.is_empty());
    }

    #[test]
    fn whatever_is_cut_or_changed_is_no_frame() {
        let mut numbers = Numbers::default();
        numbers.floats(&[1.0]);
        let bytes = frame(&["a"], &numbers).expect("fits");
        for end in 0..bytes.len() {
            let cut = frames(&bytes[..end], 4);
            let is_garbage = (1..4).contains(&end);
            assert_eq!(
                matches!(&cut, Err(NoFrame::Garbage(_))),
                is_garbage,
                "{end}: {cut:?}"
            );
            assert!(cut.is_err(), "{end}");
        }
        for place in 0..4 {
            let mut changed = bytes.clone();
            changed[place] ^= 1;
            assert!(
                matches!(frames(&changed, 4), Err(NoFrame::Garbage(_))),
                "{place}"
            );
        }
        assert!(
            matches!(frames(&bytes, 3), Err(NoFrame::Garbage(_))),
            "too many numbers"
        );
        assert!(frames(&bytes, 4).is_ok());
    }
}
