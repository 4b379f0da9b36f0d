//! What is said to find heads finds those of a model in which they are known.
use std::path::Path;

use kv_profile::{
    Model, Profile,
    duo::{Options, Pieces, Training, WORDS},
    planted::{KV_HEADS, LAYERS, Planted, RETRIEVAL},
};
use rand::{Rng, SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;

/// Words of no meaning, enough that few come twice.
const FILLERS: usize = 400;

fn planted(seed: u64) -> Planted {
    let fillers = (0..FILLERS).map(|word| format!("w{word}"));
    let ours = [
        "The", "passkey", "to", "remember", "is:", "What", "was", "the", "was:", ".", "first",
        "second",
    ];
    let words = WORDS.iter().chain(&ours).map(ToString::to_string);
    Planted::new(words.chain(fillers), seed)
}

fn model(planted: &Planted) -> Model {
    let folder = tempfile::tempdir().expect("no error");
    planted.write(folder.path()).expect("no error");
    Model::load(folder.path()).expect("no error")
}

fn text(seed: u64) -> String {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let words = (0..4000).map(|_| format!("w{}", rng.random_range(0..FILLERS)));
    words.collect::<Vec<_>>().join(" ")
}

/// The model does what it was written down to do: it goes on with what stood behind the word, however far back.
#[test]
fn the_planted_model_goes_on_with_what_it_has_read() {
    let seed: u64 = rand::random();
    let planted = planted(seed);
    let model = model(&planted);
    let mut words: Vec<String> = (0..FILLERS).map(|word| format!("w{word}")).collect();
    words.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
    // Every word once, and then some of them again.
    let again = &words[40..60];
    let all = planted.tokens(&format!("{} {}", words.join(" "), again.join(" ")));
    let logits = model.logits(&all).expect("no error");
    let said: Vec<u32> = logits
        .argmax(1)
        .expect("no error")
        .to_vec1()
        .expect("no error");
    for at in FILLERS..all.len() - 1 {
        assert_eq!(said[at], all[at + 1], "seed {seed}, token {at}");
    }
}

fn options() -> Options {
    Options {
        steps: 150,
        min_length: 120,
        max_length: 300,
        buffer: 10,
        passkeys: 2,
        words: 12,
        sinks: 4,
        recent: 16,
        block: 4,
        ..Options::default()
    }
}

fn learn(model: &Model, pieces: &Pieces, options: Options, folder: Option<&Path>) -> Profile {
    let training = Training::open(model, pieces, options, folder).expect("no error");
    training.run(10, |_| ()).expect("no error")
}

#[test]
fn the_optimisation_finds_the_planted_heads() {
    let seed: u64 = rand::random();
    let planted = planted(seed);
    let model = model(&planted);
    let pieces = Pieces::new(&text(seed), |text| {
        Ok::<_, std::convert::Infallible>(planted.tokens(text))
    });
    let options = Options { seed, ..options() };
    let profile = learn(&model, &pieces.expect("no error"), options, None);
    assert_eq!(
        (profile.values.len(), profile.values[0].len()),
        (LAYERS, KV_HEADS)
    );
    for (layer, heads) in profile.values.iter().enumerate() {
        for (head, &gate) in heads.iter().enumerate() {
            let retrieves = RETRIEVAL.contains(&(layer, head));
            assert_eq!(
                gate > 0.5,
                retrieves,
                "seed {seed}, layer {layer}, head {head}: {:?}",
                profile.values
            );
        }
    }
}
