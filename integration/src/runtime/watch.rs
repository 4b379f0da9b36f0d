//! Attention rows for whoever measures a model's heads: of every query head, while it decodes.
use std::fmt;

use attention_kernels::{AttendArgs, HeadSlots, PageStore, attend_observed};
use candle_core::{Error, Result};
use kv_core::Reduce;
use parking_lot::Mutex;

use super::Runtime;

/// The attention of one token of one sequence in one layer.
#[derive(Debug, Clone, Copy)]
pub struct SeenRows<'a> {
    /// The layer, `0..L`.
    pub layer: usize,
    /// Where the token stands in the text.
    pub position: usize,
    /// The softmax weight of every slot for every query head, `[H * G][T]`: a KV head's `G` queries come one after the other, and
    /// slots are in the order of their KV head. Where nothing was evicted, slot `t` is the token at position `t`.
    pub rows: &'a [Vec<f32>],
}

/// What is told of rows.
type Watcher = Box<dyn FnMut(&SeenRows<'_>) + Send>;

/// Who is told of rows, if anybody is.
#[derive(Default)]
pub(super) struct Watch(Mutex<Option<Watcher>>);

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let watches = self.0.lock().is_some();
        f.debug_struct("Watch").field("watches", &watches).finish()
    }
}

impl Runtime {
    /// Tells `watcher` the attention rows of every token that is decoded from now on, or read as part of a prompt's tail
    /// ([`CacheConfig::prompt_tail`](crate::CacheConfig::prompt_tail)); of no other prompt token. It is called by the engine's thread, layer by layer,
    /// in the order of the text. Attention itself does not change, and takes twice as long.
    ///
    /// For measurements, with the cache in the host's memory and keys at their positions in the text: elsewhere, tokens fail while somebody
    /// watches.
    pub fn watch_rows(&self, watcher: impl FnMut(&SeenRows<'_>) + Send + 'static) {
        *self.watch.0.lock() = Some(Box::new(watcher));
    }

    /// Nobody watches from now on.
    pub fn stop_watching(&self) {
        *self.watch.0.lock() = None;
    }
}

impl Watch {
    pub(super) fn is_on(&self) -> bool {
        self.0.lock().is_some()
    }

    /// Tells of some sequences' tokens, of which `args` attend to what `args.heads` hold.
    pub(super) fn tell(
        &self,
        store: &PageStore,
        args: &AttendArgs<'_>,
        layer: usize,
        positions: &[usize],
    ) -> Result<()> {
        let mut guard = self.0.lock();
        let Some(watcher) = guard.as_mut() else {
            return Ok(());
        };
        // Each query head for itself: a KV head's slots once for each of its queries.
        let heads: Vec<HeadSlots<'_>> = args
            .heads
            .iter()
            .flat_map(|head| vec![*head; args.group])
            .collect();
        let each = AttendArgs {
            heads: &heads,
            group: 1,
            ..*args
        };
        let seen = attend_observed(store, &each, Reduce::Mean).map_err(Error::wrap)?;
        let mut rest = seen.rows.as_slice();
        let one = heads.len() / positions.len().max(1);
        for (heads, &position) in heads.chunks(one.max(1)).zip(positions) {
            let mut rows = Vec::with_capacity(one);
            for head in heads {
                let (row, others) = rest.split_at(head.len);
                rows.push(row.to_vec());
                rest = others;
            }
            watcher(&SeenRows {
                layer,
                position,
                rows: &rows,
            });
        }
        Ok(())
    }
}
