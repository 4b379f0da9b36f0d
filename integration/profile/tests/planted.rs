//! What is said to find heads finds those of a model in which they are known.
use std::path::Path;

use kv_profile::{
    Model, Profile,
    duo::{Options, Pieces, Told, Training, WORDS},
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
        steps: 100,
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

/// What is written while a training goes on, and gone on with, gives the bits that one piece gives.
#[test]
fn a_training_that_was_cut_off_ends_as_if_it_had_not() {
    let seed: u64 = rand::random();
    let planted = planted(seed);
    let model = model(&planted);
    let pieces = Pieces::new(&text(seed), |text| {
        Ok::<_, std::convert::Infallible>(planted.tokens(text))
    });
    let pieces = pieces.expect("no error");
    let options = Options {
        steps: 12,
        seed,
        ..options()
    };
    let (whole, cut) = (tempfile::tempdir(), tempfile::tempdir());
    let (whole, cut) = (whole.expect("a folder"), cut.expect("a folder"));
    let training = Training::open(&model, &pieces, options.clone(), Some(whole.path()));
    let told = |told: &Told| {
        // What a cut between steps 8 and 12 leaves.
        if told.step == 10 {
            for file in std::fs::read_dir(whole.path()).expect("a folder") {
                let file = file.expect("a file");
                std::fs::copy(file.path(), cut.path().join(file.file_name())).expect("copies");
            }
        }
    };
    let profile = training.expect("no error").run(4, told).expect("no error");
    let again =
        Training::open(&model, &pieces, options.clone(), Some(cut.path())).expect("no error");
    assert_eq!(again.done(), 8);
    assert_eq!(
        again.run(4, |_| ()).expect("no error"),
        profile,
        "seed {seed}"
    );
    assert_eq!(Profile::read(cut.path()).expect("was written"), profile);

    let other = Options {
        words: 11,
        ..options
    };
    let error = Training::open(&model, &pieces, other, Some(cut.path())).expect_err("refused");
    assert!(
        error.to_string().contains("its `words` is 12, not 11"),
        "{error}"
    );
}

#[test]
fn options_that_make_no_sense_are_named() {
    let planted = planted(1);
    let model = model(&planted);
    let pieces = Pieces::new(&text(1), |text| {
        Ok::<_, std::convert::Infallible>(planted.tokens(text))
    });
    let pieces = pieces.expect("no error");
    let options = options();
    for (options, wanted) in [
        (
            Options {
                steps: 0,
                ..options.clone()
            },
            "`steps` is 0; allowed: at least 1",
        ),
        (
            Options {
                recent: 18,
                ..options.clone()
            },
            "`recent` is 18; allowed: a multiple of `block`, 4",
        ),
        (
            Options {
                passkeys: 11,
                ..options.clone()
            },
            "`passkeys` is 11; allowed: at most 10",
        ),
        (
            Options {
                min_length: 10,
                ..options.clone()
            },
            "`min_length` is 10; allowed: at least 11",
        ),
        (
            Options {
                rate: f64::NAN,
                ..options.clone()
            },
            "`rate` is NaN; allowed: a number from 0",
        ),
        (
            Options {
                max_length: 5000,
                ..options.clone()
            },
            "the text has 4000 tokens",
        ),
        (
            Options {
                max_length: 3990,
                words: 80,
                ..options
            },
            "fits the 4096 positions",
        ),
    ] {
        let error = Training::open(&model, &pieces, options, None)
            .expect_err("refused")
            .to_string();
        assert!(error.contains(wanted), "{error}");
    }
}

/// Files that are no model of Llama's type say what they are.
#[test]
fn other_models_are_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path();
    planted(1).write(path).expect("no error");
    let config = std::fs::read_to_string(path.join("config.json")).expect("was written");
    for (from, to, wanted) in [
        (
            "\"llama\"",
            "\"gemma2\"",
            "`model_type` is gemma2; allowed: llama, mistral, qwen2",
        ),
        (
            "\"silu\"",
            "\"gelu\"",
            "`hidden_act` is gelu; allowed: silu",
        ),
        (
            "\"num_hidden_layers\": 3",
            "\"num_hidden_layers\": 4",
            "`model.layers.3.input_layernorm.weight`",
        ),
        (
            "\"num_key_value_heads\": 4",
            "\"num_key_value_heads\": 0",
            "the number of KV heads is 0",
        ),
        (
            "\"head_dim\": 64",
            "\"head_dim\": 32",
            "layer 0: the matrix of the queries is [512, 512]; allowed: [256, 512]",
        ),
        (
            "\"head_dim\": 64",
            "\"head_dim\": 63",
            "the dimension of a head is 63",
        ),
        (
            "\"head_dim\"",
            "\"sliding_window\": 9, \"head_dim\"",
            "`sliding_window` is 9; allowed: none",
        ),
        ("{", "", "config.json: "),
    ] {
        let changed = config.replacen(from, to, 1);
        assert_ne!(changed, config, "{from}");
        std::fs::write(path.join("config.json"), changed).expect("writes");
        let error = Model::load(path).expect_err("refused").to_string();
        assert!(error.contains(wanted), "{error}");
    }
    let file = path.join("model.safetensors");
    for wrong in [file.as_path(), &path.join("missing.gguf")] {
        let error = Model::load(wrong).expect_err("refused").to_string();
        assert!(error.contains(&*wrong.to_string_lossy()), "{error}");
    }
}
