//! `.npy`: one array, as numpy writes it.

const MAGIC: &[u8] = b"\x93NUMPY";

/// Numbers in row-major order.
#[derive(Debug, PartialEq)]
pub(crate) struct Array<E> {
    pub(crate) values: Vec<E>,
    pub(crate) dims: Vec<usize>,
}

/// A type of number that arrays of cases hold.
pub(crate) trait Element: Sized {
    /// How numpy calls it.
    const NAME: &'static str;
    const SIZE: usize;

    /// From bytes, of which there are a multiple of [`Element::SIZE`].
    fn read(bytes: &[u8]) -> Vec<Self>;
}

impl Element for u8 {
    const NAME: &'static str = "|u1";
    const SIZE: usize = 1;

    fn read(bytes: &[u8]) -> Vec<Self> {
        bytes.to_vec()
    }
}

impl Element for f32 {
    const NAME: &'static str = "<f4";
    const SIZE: usize = 4;

    fn read(bytes: &[u8]) -> Vec<Self> {
        let (numbers, _) = bytes.as_chunks();
        numbers.iter().copied().map(Self::from_le_bytes).collect()
    }
}

impl<E: Element> Array<E> {
    pub(crate) fn parse(file: &[u8]) -> Result<Self, String> {
        let (header, data) = split(file).ok_or("is no array of numpy's")?;
        let field = |name| field(header, name).ok_or(format!("its header has no `{name}`"));
        let kind = field("descr")?.trim_matches('\'');
        if kind != E::NAME {
            return Err(format!("holds `{kind}`, not `{}`", E::NAME));
        }
        if field("fortran_order")? != "False" {
            return Err("stands column by column".into());
        }
        let shape = field("shape")?;
        let dims = dims(shape).ok_or_else(|| format!("its shape is `{shape}`"))?;
        let bytes = dims
            .iter()
            .try_fold(E::SIZE, |product, &dim| product.checked_mul(dim));
        if bytes != Some(data.len()) {
            return Err(format!("holds {} bytes, not those of {dims:?}", data.len()));
        }
        Ok(Self {
            values: E::read(data),
            dims,
        })
    }
}

/// The header's text and what follows it.
fn split(file: &[u8]) -> Option<(&str, &[u8])> {
    let rest = file.strip_prefix(MAGIC)?;
    let (version, rest) = rest.split_at_checked(2)?;
    let (len, rest) = match version[0] {
        1 => {
            let (len, rest) = rest.split_first_chunk()?;
            (usize::from(u16::from_le_bytes(*len)), rest)
        }
        2 | 3 => {
            let (len, rest) = rest.split_first_chunk()?;
            (usize::try_from(u32::from_le_bytes(*len)).ok()?, rest)
        }
        _ => return None,
    };
    let (header, data) = rest.split_at_checked(len)?;
    Some((std::str::from_utf8(header).ok()?, data))
}

/// The value of a field of the header, which is a dictionary in Python's notation.
fn field<'a>(header: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = header.split_once(&format!("'{name}':"))?;
    let rest = rest.trim_start();
    let end = if rest.starts_with('(') {
        rest.find(')')? + 1
    } else {
        rest.find([',', '}'])?
    };
    Some(rest[..end].trim())
}

fn dims(shape: &str) -> Option<Vec<usize>> {
    let inside = shape.strip_prefix('(')?.strip_suffix(')')?.trim();
    let inside = inside.strip_suffix(',').unwrap_or(inside);
    if inside.is_empty() {
        return Some(Vec::new());
    }
    inside
        .split(',')
        .map(|dim| dim.trim().parse().ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(header: &str, data: &[u8]) -> Vec<u8> {
        let len = u16::try_from(header.len()).expect("short").to_le_bytes();
        [MAGIC, &[1, 0], &len, header.as_bytes(), data].concat()
    }

    #[test]
    fn headers_of_numpy_are_read() {
        let header = "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 1), }  \n";
        let data = [1.5_f32.to_le_bytes(), (-2.0_f32).to_le_bytes()].concat();
        let array: Array<f32> = Array::parse(&file(header, &data)).expect("an array");
        assert_eq!((array.values, array.dims), (vec![1.5, -2.0], vec![2, 1]));
        let header = "{'descr': '|u1', 'fortran_order': False, 'shape': (3,), }\n";
        let array: Array<u8> = Array::parse(&file(header, &[1, 2, 3])).expect("an array");
        assert_eq!((array.values, array.dims), (vec![1, 2, 3], vec![3]));
    }

    #[test]
    fn what_is_wrong_is_said() {
        let wrong = |header: &str, data: &[u8]| {
            Array::<u8>::parse(&file(header, data)).expect_err("a broken file")
        };
        let header = "{'descr': '<f8', 'fortran_order': False, 'shape': (3,), }";
        assert_eq!(wrong(header, &[]), "holds `<f8`, not `|u1`");
        let header = "{'descr': '|u1', 'fortran_order': True, 'shape': (3,), }";
        assert_eq!(wrong(header, &[]), "stands column by column");
        let header = "{'descr': '|u1', 'fortran_order': False, 'shape': (-3,), }";
        assert_eq!(wrong(header, &[]), "its shape is `(-3,)`");
        let header = "{'descr': '|u1', 'fortran_order': False, 'shape': (4, 99999999999999999), }";
        assert!(wrong(header, &[0; 9]).starts_with("holds 9 bytes, not those of [4, "));
        assert_eq!(wrong("{'shape': ", &[]), "its header has no `descr`");
        assert_eq!(
            Array::<u8>::parse(b"\x93NUMPY\x01\x00\xff"),
            Err("is no array of numpy's".into())
        );
    }
}
