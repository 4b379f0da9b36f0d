//! The file of arrays.
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use crate::{
    ConformError,
    npy::{Array, Element},
    npz::Npz,
};

/// The arrays of a file: masks by name, and the queries and keys of the layers that it has.
pub(crate) struct Arrays {
    file: PathBuf,
    npz: Npz,
    layers: BTreeMap<usize, Layer>,
    shape: LayerShape,
}

/// Queries and keys of one layer, after `RoPE`.
#[derive(Debug, Clone)]
pub(crate) struct Layer {
    /// `[H * G, T, D]`.
    pub(crate) queries: Vec<f32>,
    /// `[H, T, D]`.
    pub(crate) keys: Vec<f32>,
    pub(crate) shape: LayerShape,
}

/// What all layers of a file have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LayerShape {
    pub(crate) query_heads: usize,
    pub(crate) kv_heads: usize,
    pub(crate) tokens: usize,
    pub(crate) head_dim: usize,
}

impl Arrays {
    pub(crate) fn open(file: &Path) -> Result<Self, ConformError> {
        let bytes = fs::read(file).map_err(|error| ConformError::Read {
            file: file.to_owned(),
            error,
        })?;
        let npz = Npz::open(bytes).map_err(|reason| ConformError::Archive {
            file: file.to_owned(),
            reason,
        })?;
        let mut arrays = Self {
            file: file.to_owned(),
            npz,
            layers: BTreeMap::new(),
            shape: LayerShape {
                query_heads: 0,
                kv_heads: 0,
                tokens: 0,
                head_dim: 0,
            },
        };
        arrays.layers = if arrays.has("q") {
            arrays.stacked()?
        } else {
            arrays.by_layer()?
        };
        match arrays.layers.values().next() {
            Some(layer) => arrays.shape = layer.shape,
            None => {
                return Err(arrays.wrong("q", "is missing, and so are `L0_q`, `L1_q` and so on"));
            }
        }
        Ok(arrays)
    }

    /// The shape of every layer.
    pub(crate) const fn shape(&self) -> LayerShape {
        self.shape
    }

    /// A layer's queries and keys, if the file has them.
    pub(crate) fn layer(&self, layer: usize) -> Option<&Layer> {
        self.layers.get(&layer)
    }

    pub(crate) fn wrong(&self, array: &str, reason: impl Into<String>) -> ConformError {
        ConformError::Array {
            file: self.file.clone(),
            array: array.to_owned(),
            reason: reason.into(),
        }
    }

    /// An array of bytes.
    pub(crate) fn bytes(&self, name: &str) -> Result<Array<u8>, ConformError> {
        self.read(name)
    }

    fn has(&self, name: &str) -> bool {
        self.npz.names().any(|known| known == name)
    }

    fn read<E: Element>(&self, name: &str) -> Result<Array<E>, ConformError> {
        let wrong = |reason: String| self.wrong(name, reason);
        let file = self.npz.get(name).map_err(wrong)?;
        Array::parse(&file).map_err(wrong)
    }

    fn stacked(&self) -> Result<BTreeMap<usize, Layer>, ConformError> {
        let (queries, keys) = (self.read::<f32>("q")?, self.read::<f32>("k")?);
        let (&[layers, ..], &[key_layers, ..]) = (&*queries.dims, &*keys.dims) else {
            return Err(self.wrong("q", "has no axis of layers"));
        };
        if layers != key_layers {
            let reason = format!("has {key_layers} layers where `q` has {layers}");
            return Err(self.wrong("k", reason));
        }
        let shape = self.layer_shape(("q", &queries.dims[1..]), ("k", &keys.dims[1..]))?;
        let queries = queries
            .values
            .chunks_exact(shape.query_heads * shape.tokens * shape.head_dim);
        let keys = keys
            .values
            .chunks_exact(shape.kv_heads * shape.tokens * shape.head_dim);
        let layers = queries.zip(keys).map(|(queries, keys)| Layer {
            queries: queries.to_vec(),
            keys: keys.to_vec(),
            shape,
        });
        Ok(layers.enumerate().collect())
    }

    fn by_layer(&self) -> Result<BTreeMap<usize, Layer>, ConformError> {
        let number = |name: &str| name.strip_prefix('L')?.strip_suffix("_q")?.parse().ok();
        let mut layers: Vec<usize> = self.npz.names().filter_map(number).collect();
        layers.sort_unstable();
        let mut found = BTreeMap::new();
        let mut first = None;
        for layer in layers {
            let (query_name, key_name) = (format!("L{layer}_q"), format!("L{layer}_k"));
            let queries = self.read(&query_name)?;
            let keys = self.read(&key_name)?;
            let shape = self.layer_shape((&query_name, &queries.dims), (&key_name, &keys.dims))?;
            if *first.get_or_insert(shape) != shape {
                let reason = format!(
                    "its shape {:?} is not that of the other layers",
                    queries.dims
                );
                return Err(self.wrong(&query_name, reason));
            }
            let layer_arrays = Layer {
                queries: queries.values,
                keys: keys.values,
                shape,
            };
            found.insert(layer, layer_arrays);
        }
        Ok(found)
    }

    /// Checks that a layer's queries and keys belong together.
    fn layer_shape(
        &self,
        (query_name, queries): (&str, &[usize]),
        (key_name, keys): (&str, &[usize]),
    ) -> Result<LayerShape, ConformError> {
        let &[query_heads, tokens, head_dim] = queries else {
            let reason = format!("a layer's shape is {queries:?}, not [H * G, T, D]");
            return Err(self.wrong(query_name, reason));
        };
        if query_heads == 0 || tokens == 0 || head_dim == 0 {
            let reason = format!("a layer's shape is {queries:?}");
            return Err(self.wrong(query_name, reason));
        }
        match *keys {
            [kv_heads, key_tokens, key_dim]
                if (key_tokens, key_dim) == (tokens, head_dim)
                    && kv_heads > 0
                    && query_heads.is_multiple_of(kv_heads) =>
            {
                Ok(LayerShape {
                    query_heads,
                    kv_heads,
                    tokens,
                    head_dim,
                })
            }
            _ => {
                let reason = format!(
                    "a layer's shape is {keys:?}, which does not go with queries of {queries:?}"
                );
                Err(self.wrong(key_name, reason))
            }
        }
    }
}

impl Layer {
    /// The layer as one of `H * G` KV heads, each repeated for its query heads.
    pub(crate) fn repeated(&self) -> Self {
        let LayerShape {
            query_heads,
            kv_heads,
            tokens,
            head_dim,
        } = self.shape;
        let heads = self.keys.chunks_exact(tokens * head_dim);
        let repeat = |head| std::iter::repeat_n(head, query_heads / kv_heads);
        let keys: Vec<&[f32]> = heads.flat_map(repeat).collect();
        Self {
            queries: self.queries.clone(),
            keys: keys.concat(),
            shape: LayerShape {
                kv_heads: query_heads,
                ..self.shape
            },
        }
    }
}
