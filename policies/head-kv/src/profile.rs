//! How much each query head matters: the authors' JSON of scores.
use std::{collections::BTreeMap, fmt};

use kv_core::{ConfigError, Geometry, PolicyConfig, ProfileFile};
use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, SeqAccess, Visitor},
};

use crate::{HeadKvConfig, config::NEUTRAL};

/// Larger files are no profile. The authors' have some two megabytes.
const LARGEST: u64 = 64 << 20;

/// Larger scores are no shares of attention, and their sums might have no end.
const MOST: f64 = 1e100;

/// What stands under a key.
#[derive(Debug)]
enum Entry {
    /// A number.
    Score(f64),
    /// The mean of a list.
    Mean(f64),
    /// Anything else, in words.
    Wrong(String),
}

/// All keys in the order of the file, doubles too.
#[derive(Debug)]
struct Entries(Vec<(String, Entry)>);

/// Scores of all query heads, `[L * G * H]`, layer by layer.
pub(crate) fn read(path: &str, geometry: &Geometry) -> Result<Vec<f64>, ConfigError> {
    let source = ProfileFile::new(HeadKvConfig::NAME, "profile", path, LARGEST);
    let text = source.read(&format!("`{NEUTRAL}` or a JSON file of head scores"))?;
    let Entries(entries) = serde_json::from_str(&text).map_err(|error| {
        source.malformed(&error, "a JSON object with a list of scores for each head")
    })?;
    grid(entries, &source, geometry)
}

/// The entries as a complete grid of `L` layers by `G * H` query heads.
fn grid(
    entries: Vec<(String, Entry)>,
    source: &ProfileFile,
    geometry: &Geometry,
) -> Result<Vec<f64>, ConfigError> {
    let query_heads = geometry.group * geometry.kv_heads;
    let model = format!("{} layers of {query_heads} query heads", geometry.layers);
    let mut found = BTreeMap::new();
    for (key, entry) in entries {
        let place = || format!("key {}", ProfileFile::quoted(&key));
        let score = match entry {
            Entry::Score(score) | Entry::Mean(score) => score,
            Entry::Wrong(what) => {
                return Err(source.wrong(place(), what, "a list of scores from 0"));
            }
        };
        let Some(index) = index(&key, geometry.layers, query_heads) else {
            return Err(source.wrong(
                place(),
                "no head of this model",
                format!("\"layer-head\" with {model}, counted from 0"),
            ));
        };
        if found.insert(index, score).is_some() {
            return Err(source.wrong(place(), "the key twice", "it once"));
        }
    }
    (0..geometry.layers * query_heads)
        .map(|index| {
            found.get(&index).copied().ok_or_else(|| {
                let key = format!("key `{}-{}`", index / query_heads, index % query_heads);
                source.wrong(key, "nothing", format!("scores of every head: {model}"))
            })
        })
        .collect()
}

/// Where the head of a key `layer-head` stands among all query heads.
fn index(key: &str, layers: usize, query_heads: usize) -> Option<usize> {
    let (layer, head) = key.split_once('-')?;
    let (layer, head): (usize, usize) = (layer.parse().ok()?, head.parse().ok()?);
    let is_canonical = key == format!("{layer}-{head}");
    (is_canonical && layer < layers && head < query_heads).then_some(layer * query_heads + head)
}

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Keys;
        impl<'de> Visitor<'de> for Keys {
            type Value = Entries;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entries, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Entries(entries))
            }
        }
        deserializer.deserialize_map(Keys)
    }
}

impl<'de> Deserialize<'de> for Entry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyEntry)
    }
}

struct AnyEntry;

fn wrong<E>(what: impl Into<String>) -> Result<Entry, E> {
    Ok(Entry::Wrong(what.into()))
}

impl<'de> Visitor<'de> for AnyEntry {
    type Value = Entry;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a score or a list of scores")
    }

    fn visit_f64<E>(self, score: f64) -> Result<Entry, E> {
        if (0.0..=MOST).contains(&score) {
            Ok(Entry::Score(score))
        } else {
            wrong(format!("{score:?}"))
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "a score need not be exact")]
    fn visit_u64<E>(self, score: u64) -> Result<Entry, E> {
        Ok(Entry::Score(score as f64))
    }

    /// Serde's JSON calls this for negative numbers only.
    fn visit_i64<E>(self, score: i64) -> Result<Entry, E> {
        wrong(score.to_string())
    }

    fn visit_bool<E>(self, value: bool) -> Result<Entry, E> {
        wrong(value.to_string())
    }

    fn visit_unit<E>(self) -> Result<Entry, E> {
        wrong("null")
    }

    fn visit_str<E>(self, text: &str) -> Result<Entry, E> {
        wrong(format!("the text {}", ProfileFile::quoted(text)))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entry, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        wrong("an object")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Entry, A::Error> {
        let (mut sum, mut count, mut first_wrong) = (0.0, 0.0, None);
        while let Some(entry) = list.next_element()? {
            match entry {
                Entry::Score(score) => (sum, count) = (sum + score, count + 1.0),
                Entry::Mean(_) => first_wrong = first_wrong.or(Some("a list in a list".into())),
                Entry::Wrong(what) => first_wrong = first_wrong.or(Some(what)),
            }
        }
        match first_wrong {
            Some(what) => wrong(what),
            None if count > 0.0 => Ok(Entry::Mean(sum / count)),
            None => wrong("an empty list"),
        }
    }
}
