//! The file of arrays.
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use kv_core::Rotation;

use crate::{
    ConformError,
    case::{Case, Meta},
    layer::{Layer, LayerShape},
    npy::{Array, Element},
    npz::Npz,
    rope,
};

/// The output projection of all layers, `[L, M, H * G * D]`.
const PROJECTION: &str = "o_proj_weight";

/// Positions behind the text that are turned too, for methods that look ahead.
const AHEAD: usize = 4096;

/// The arrays of a file: masks by name, and the tensors of the layers that it has.
pub(crate) struct Arrays {
    file: PathBuf,
    npz: Npz,
    layers: BTreeMap<usize, Layer>,
    shape: LayerShape,
    rotation: Option<Rotation>,
    score_layers: Option<Vec<usize>>,
}

impl Arrays {
    /// Opens a file of arrays, about which the case file says `meta`.
    pub(crate) fn open(file: &Path, meta: &Meta) -> Result<Self, ConformError> {
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
            rotation: None,
            score_layers: meta.score_layers.clone(),
        };
        arrays.layers = if arrays.has("q") {
            arrays.stacked()?
        } else {
            arrays.by_layer()?
        };
        arrays.add_projections()?;
        match arrays.layers.values().next() {
            Some(layer) => arrays.shape = layer.shape,
            None => {
                return Err(arrays.wrong("q", "is missing, and so are `L0_q`, `L1_q` and so on"));
            }
        }
        let LayerShape {
            tokens, head_dim, ..
        } = arrays.shape;
        let base = meta.rope_theta.filter(|_| head_dim.is_multiple_of(2));
        arrays.rotation = base.map(|base| rope::rotation(base, head_dim, tokens + AHEAD));
        Ok(arrays)
    }

    /// How the model turns queries and keys, if the case file says it.
    pub(crate) const fn rotation(&self) -> Option<&Rotation> {
        self.rotation.as_ref()
    }

    /// The shape of every layer.
    pub(crate) const fn shape(&self) -> LayerShape {
        self.shape
    }

    /// A layer's tensors, if the file has them.
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

    /// The scores by which the reference chose, `[H][T]` of each layer that the file has them of.
    pub(crate) fn scores(
        &self,
        case: &Case,
    ) -> Result<BTreeMap<usize, Vec<Vec<f32>>>, ConformError> {
        let Some(name) = case.score.as_deref().filter(|name| self.has(name)) else {
            return Ok(BTreeMap::new());
        };
        let Array { values, dims } = self.read::<f32>(name)?;
        let &[heads, tokens] = &case.shape[1..] else {
            return Ok(BTreeMap::new());
        };
        let listed = case.score_layers.as_ref().or(self.score_layers.as_ref());
        let layers = match listed {
            Some(layers) => layers.clone(),
            None if dims.first() == case.shape.first() => (0..case.shape[0]).collect(),
            // Of layers that nobody names.
            None => return Ok(BTreeMap::new()),
        };
        if dims != [layers.len(), heads, tokens] {
            let reason = format!(
                "its shape is {dims:?}, not [{}, {heads}, {tokens}]",
                layers.len()
            );
            return Err(self.wrong(name, reason));
        }
        let rows: Vec<Vec<f32>> = values.chunks_exact(tokens).map(<[f32]>::to_vec).collect();
        let rows = rows.chunks_exact(heads).map(<[Vec<f32>]>::to_vec);
        Ok(layers.into_iter().zip(rows).collect())
    }

    fn has(&self, name: &str) -> bool {
        self.npz.names().any(|known| known == name)
    }

    fn read<E: Element>(&self, name: &str) -> Result<Array<E>, ConformError> {
        let wrong = |reason: String| self.wrong(name, reason);
        let file = self.npz.get(name).map_err(wrong)?;
        Array::parse(&file).map_err(wrong)
    }

    fn read_if_there(&self, name: &str) -> Result<Option<Array<f32>>, ConformError> {
        self.has(name).then(|| self.read(name)).transpose()
    }

    fn stacked(&self) -> Result<BTreeMap<usize, Layer>, ConformError> {
        let (queries, keys) = (self.read::<f32>("q")?, self.read::<f32>("k")?);
        let values = self.read_if_there("v")?;
        let (&[layers, ..], &[key_layers, ..]) = (&*queries.dims, &*keys.dims) else {
            return Err(self.wrong("q", "has no axis of layers"));
        };
        if layers != key_layers {
            let reason = format!("has {key_layers} layers where `q` has {layers}");
            return Err(self.wrong("k", reason));
        }
        let shape = self.layer_shape(("q", &queries.dims[1..]), ("k", &keys.dims[1..]))?;
        if let Some(values) = &values {
            self.check_values("v", &values.dims, &keys.dims)?;
        }
        let part = |array: &Array<f32>, layer: usize| {
            let len = array.values.len() / layers;
            array.values[layer * len..(layer + 1) * len].to_vec()
        };
        let layer = |layer| Layer {
            queries: part(&queries, layer),
            keys: part(&keys, layer),
            values: values.as_ref().map(|values| part(values, layer)),
            projection: None,
            shape,
        };
        Ok((0..layers).map(|index| (index, layer(index))).collect())
    }

    fn by_layer(&self) -> Result<BTreeMap<usize, Layer>, ConformError> {
        let number = |name: &str| name.strip_prefix('L')?.strip_suffix("_q")?.parse().ok();
        let mut layers: Vec<usize> = self.npz.names().filter_map(number).collect();
        layers.sort_unstable();
        let mut found = BTreeMap::new();
        let mut first = None;
        for layer in layers {
            let [query_name, key_name, value_name] =
                ["q", "k", "v"].map(|part| format!("L{layer}_{part}"));
            let queries = self.read(&query_name)?;
            let keys = self.read(&key_name)?;
            let values = self.read_if_there(&value_name)?;
            let shape = self.layer_shape((&query_name, &queries.dims), (&key_name, &keys.dims))?;
            if *first.get_or_insert(shape) != shape {
                let reason = format!(
                    "its shape {:?} is not that of the other layers",
                    queries.dims
                );
                return Err(self.wrong(&query_name, reason));
            }
            if let Some(values) = &values {
                self.check_values(&value_name, &values.dims, &keys.dims)?;
            }
            let layer_arrays = Layer {
                queries: queries.values,
                keys: keys.values,
                values: values.map(|values| values.values),
                projection: None,
                shape,
            };
            found.insert(layer, layer_arrays);
        }
        Ok(found)
    }

    /// Gives the layers their output projections, stacked or one for each layer.
    fn add_projections(&mut self) -> Result<(), ConformError> {
        let stacked = self.read_if_there(PROJECTION)?;
        let mut found = BTreeMap::new();
        for (&layer, tensors) in &self.layers {
            let own = format!("L{layer}_{PROJECTION}");
            let inputs = tensors.shape.query_heads * tensors.shape.head_dim;
            if let Some(weights) = self.read_if_there(&own)? {
                self.check_projection(&own, &weights.dims, inputs)?;
                found.insert(layer, weights.values);
            } else if let Some(weights) = &stacked {
                let dims = weights.dims.get(1..).unwrap_or_default();
                self.check_projection(PROJECTION, dims, inputs)?;
                let mut matrices = weights.values.chunks_exact(dims[0] * inputs);
                if let Some(matrix) = matrices.nth(layer) {
                    found.insert(layer, matrix.to_vec());
                }
            }
        }
        for (layer, tensors) in &mut self.layers {
            tensors.projection = found.remove(layer);
        }
        Ok(())
    }

    fn check_values(
        &self,
        name: &str,
        values: &[usize],
        keys: &[usize],
    ) -> Result<(), ConformError> {
        if values == keys {
            return Ok(());
        }
        let reason = format!("its shape is {values:?}, not {keys:?} as that of the keys");
        Err(self.wrong(name, reason))
    }

    /// Checks that a layer's matrix takes what its query heads give.
    fn check_projection(
        &self,
        name: &str,
        dims: &[usize],
        inputs: usize,
    ) -> Result<(), ConformError> {
        match *dims {
            [outputs, columns] if outputs > 0 && columns == inputs => Ok(()),
            _ => {
                let reason = format!("a layer's shape is {dims:?}, not [M, {inputs}]");
                Err(self.wrong(name, reason))
            }
        }
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
