//! `mistralrs-kv policies`.

/// Prints every policy with its fields and their defaults.
pub(crate) fn print() {
    for policy in mistralrs_kv::policies().describe() {
        println!("{}\n    {}", policy.name, policy.summary);
        for (field, default) in policy.defaults {
            match default.is_null() {
                true => println!("    --set {field}=...  (no default)"),
                false => println!("    --set {field}={default}"),
            }
        }
    }
    println!(
        "\nBudgets: `--budget 256` tokens per KV head, `25%` of the prompt, `64MiB` per sequence, `full`."
    );
}
