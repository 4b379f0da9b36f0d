//! One call of the program: numbers and buffers in, buffers out.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A call, in a folder of its own that goes when the call does.
pub(crate) struct Call {
    folder: PathBuf,
    numbers: String,
}

impl Call {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let next = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("call-{}-{next}", std::process::id());
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        fs::create_dir_all(&folder).expect("a folder for a call");
        Self {
            folder,
            numbers: String::new(),
        }
    }

    pub(crate) fn number(&mut self, name: &str, number: impl std::fmt::Display) -> &mut Self {
        self.numbers += &format!("{name} {number}\n");
        self
    }

    pub(crate) fn buffer(&mut self, name: &str, bytes: &[u8]) -> &mut Self {
        fs::write(self.folder.join(name), bytes).expect("a buffer");
        self
    }

    /// Runs the program. Panics where it fails or where the detector found something.
    pub(crate) fn run(&mut self, program: &Path) {
        fs::write(self.folder.join("call.txt"), &self.numbers).expect("the numbers of a call");
        let output = Command::new(program)
            .arg(&self.folder)
            .output()
            .expect("the program starts");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success(),
            "{}\n{errors}{}",
            output.status,
            self.numbers
        );
    }

    pub(crate) fn result(&self, name: &str) -> Vec<u8> {
        fs::read(self.folder.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        // What is left lies under cargo's target folder, and hurts nobody.
        let _ = fs::remove_dir_all(&self.folder);
    }
}
