//! Prompts that cannot be observed.

use attention_kernels::cuda::{self, CudaError, Device, DevicePrompt, View};
use attention_kernels::{KernelError, KvDtype};
use kv_core::{Observation, Pool, Reduction};

use super::super::Cuda;
use super::super::cuda::{encode, view};
use super::{HEAD_DIM, TYPE};

const ALL: Observation = Observation::Accumulated;

/// Three rows, and scores of which none may be written.
struct Asked<'a, D: Device> {
    backend: &'a Cuda<D>,
    rows: D::Buffer,
    scores: D::Buffer,
}

impl<D: Device> Asked<'_, D> {
    /// What would be observed.
    fn good(&self) -> DevicePrompt<'_, D::Buffer> {
        DevicePrompt {
            queries: Some(view(&self.rows)),
            keys: view(&self.rows),
            dtype: TYPE,
            heads: 1,
            rows: 3,
            tokens: 3,
            group: 1,
            head_dim: HEAD_DIM,
            scale: 1.0,
            softcap: None,
        }
    }

    fn error(
        &self,
        observation: Observation,
        pool: Pool,
        prompt: &DevicePrompt<'_, D::Buffer>,
    ) -> CudaError {
        let reduction = Reduction {
            pool,
            ..Reduction::MEAN
        };
        let (device, scores) = (&self.backend.0, view(&self.scores));
        let seen = cuda::observe(device, observation, reduction, prompt, scores);
        let mut bytes = [0; 12];
        let read = device.download(&self.scores, 12, &mut bytes);
        read.expect("a download");
        assert_eq!(bytes[..], encode(&[5.0; 3], KvDtype::F32));
        seen.expect_err("a call to refuse")
    }

    /// The error of a prompt that `change` makes of the good one.
    fn changed<'b>(
        &'b self,
        observation: Observation,
        change: impl FnOnce(&mut DevicePrompt<'b, D::Buffer>),
    ) -> CudaError {
        let mut prompt = self.good();
        change(&mut prompt);
        self.error(observation, Pool::None, &prompt)
    }
}

pub(super) fn refused<D: Device>(backend: &Cuda<D>) {
    let asked = Asked {
        backend,
        rows: backend.upload(&[1.0; 3 * HEAD_DIM], TYPE),
        scores: backend.upload(&[5.0; 3], KvDtype::F32),
    };
    for group in [0, 129] {
        let error = asked.changed(ALL, |prompt| prompt.group = group);
        assert_eq!(error, CudaError::Group { group, most: 128 });
    }
    for observation in [ALL, Observation::KeyNorms] {
        let error = asked.changed(observation, |prompt| prompt.head_dim = 12);
        assert!(
            matches!(error, CudaError::HeadDim { head_dim: 12, .. }),
            "{error}"
        );
        let error = asked.changed(observation, |prompt| prompt.tokens = 4);
        let want = KernelError::TokensOutOfRange { tokens: 4, rows: 3 };
        assert_eq!(error, CudaError::Kernel(want));
        let error = asked.changed(observation, |prompt| prompt.head_dim = 24);
        assert!(
            is_too_small(&error, "queries") || is_too_small(&error, "keys"),
            "{error}"
        );
    }
    let error = asked.changed(ALL, |prompt| prompt.rows = 4);
    assert!(is_too_small(&error, "scores"), "{error}");
    let error = asked.changed(ALL, |prompt| prompt.queries = None);
    assert!(is_too_small(&error, "queries"), "{error}");
    let error = asked.changed(ALL, |prompt| prompt.softcap = Some(-1.0));
    let want = KernelError::SoftcapOutOfRange { softcap: -1.0 };
    assert_eq!(error, CudaError::Kernel(want));
    let error = asked.changed(ALL, |prompt| prompt.scale = f32::INFINITY);
    let want = KernelError::ScaleOutOfRange {
        scale: f32::INFINITY,
    };
    assert_eq!(error, CudaError::Kernel(want));
    let error = asked.error(ALL, Pool::Max(4), &asked.good());
    let want = KernelError::PoolWidthOutOfRange { width: 4 };
    assert_eq!(error, CudaError::Kernel(want));
    let error = asked.changed(Observation::Window { queries: 0 }, |_| ());
    let want = KernelError::WindowOutOfRange { window: 0 };
    assert_eq!(error, CudaError::Kernel(want));
    let observation = Observation::Latest;
    let error = asked.changed(observation, |_| ());
    let want = KernelError::NotObserved { observation };
    assert_eq!(error, CudaError::Kernel(want));
}

fn is_too_small(error: &CudaError, which: &str) -> bool {
    matches!(error, CudaError::BufferTooSmall { what, .. } if *what == which)
}

/// More than the second dimension of a grid.
pub(super) fn too_many_heads<D: Device>(backend: &Cuda<D>) {
    let heads = 70_000;
    let keys = backend.0.zeroed(heads * HEAD_DIM).expect("memory");
    let scores = backend.0.zeroed(4 * heads).expect("memory");
    let prompt = DevicePrompt {
        queries: Some(View::whole(&keys)),
        keys: View::whole(&keys),
        dtype: TYPE,
        heads,
        rows: 1,
        tokens: 1,
        group: 1,
        head_dim: HEAD_DIM / 2,
        scale: 1.0,
        softcap: None,
    };
    for observation in [ALL, Observation::KeyNorms] {
        let scores = View::whole(&scores);
        let seen = cuda::observe(&backend.0, observation, Reduction::MEAN, &prompt, scores);
        let want = CudaError::TooMany {
            what: "query heads",
            number: heads,
            most: 65535,
        };
        assert_eq!(seen, Err(want));
    }
}
