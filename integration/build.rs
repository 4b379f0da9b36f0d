//! Stops at once, with what to do, where cargo would build against the unpatched engine.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    // The patched engine's build script sets this; the published one has none.
    if std::env::var_os("DEP_MISTRALRS_CORE_KV_HOOK_ABI").is_none() {
        println!(
            "cargo::error=mistralrs-kv needs the patched mistralrs-core, but cargo found the published one. In Headroom's \
             repository run `cargo xtask setup`. For an app of your own run `cargo xtask vendor --into DIR` in Headroom's \
             repository, and add to your root manifest: [patch.crates-io] mistralrs-core = {{ path = \"DIR/mistralrs-core\" }}"
        );
    }
}
