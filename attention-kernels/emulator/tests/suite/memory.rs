//! What the host does, and launches that are refused.

use ptx_emulator::{Address, Launch, LaunchError, Memory, MemoryError, Module, Param, launch};

use crate::{kernels, module_of, read};

#[test]
fn reads_and_writes_stay_inside() {
    let mut memory = Memory::new();
    let first = memory.alloc(10, "first");
    let second = memory.zeroed(4, "second");
    assert!(second.get() - first.get() >= 10 + 4096);
    assert_eq!(first.get() % 256, 0);
    assert_eq!(read(&mut memory, first, 10), [0xFF; 10]);
    memory.write(first.offset(8), &[1, 2]).expect("inside");
    assert_eq!(read(&mut memory, first.offset(7), 3), [0xFF, 1, 2]);
    assert_eq!(read(&mut memory, second, 4), [0; 4]);
    let beyond = MemoryError::OutOfBounds {
        address: first.get() + 9,
        bytes: 2,
    };
    assert_eq!(memory.write(first.offset(9), &[0; 2]), Err(beyond));
    memory.free(first).expect("live");
    let gone = MemoryError::NotLive {
        address: first.get(),
    };
    assert_eq!(memory.free(first), Err(gone.clone()));
    assert_eq!(memory.write(first, &[0]), Err(gone));
    assert!(memory.read(Address::NULL, &mut [0]).is_err());
}

fn refused(
    entry: &str,
    grid: [u32; 3],
    block: [u32; 3],
    shared: usize,
    params: &[Param<'_>],
) -> String {
    let shape = Launch {
        grid,
        block,
        dynamic_shared: shared,
        params,
    };
    match launch(&kernels(), &mut Memory::new(), entry, &shape) {
        Ok(_) | Err(LaunchError::Faults(_)) => panic!("the launch was not refused"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn refusals_name_the_mistake() {
    let one = [1, 1, 1];
    let good = [Param::Ptr(Address::NULL), Param::U32(1)];
    assert!(refused("wrok", one, one, 0, &good).contains("no entry `wrok`"));
    assert!(refused("work", one, one, 0, &good[..1]).contains("takes 2 parameters, got 1"));
    let wrong = [Param::Ptr(Address::NULL), Param::F32(1.0)];
    assert!(
        refused("work", one, one, 0, &wrong)
            .contains("parameter 1 of entry `work` is U32, got F32(1.0)")
    );
    let wrong = [Param::U32(0), Param::U32(1)];
    assert!(refused("work", one, one, 0, &wrong).contains("parameter 0"));
    assert!(refused("work", one, [1025, 1, 1], 0, &good).contains("a block of [1025, 1, 1]"));
    assert!(refused("work", one, [1, 1, 65], 0, &good).contains("64 at most along z"));
    assert!(refused("work", [1, 0, 1], one, 0, &good).contains("a grid of [1, 0, 1]"));
    assert!(refused("work", one, one, 1 << 20, &good).contains("1048576 bytes of shared memory"));
}

#[test]
fn blocks_keep_to_what_the_entry_declares() {
    let text = |directive: &str| {
        let text = format!(
            ".version 7.0\n.target sm_80\n.address_size 64\n.entry k() {directive} {{ ret; }}"
        );
        Module::parse(&text).expect("PTX")
    };
    let run = |directive: &str, block: [u32; 3]| {
        let shape = Launch {
            grid: [1, 1, 1],
            block,
            dynamic_shared: 0,
            params: &[],
        };
        launch(&text(directive), &mut Memory::new(), "k", &shape).is_ok()
    };
    assert!(run(".maxntid 64, 1, 1 .minnctapersm 2", [64, 1, 1]));
    assert!(!run(".maxntid 64, 1, 1 .minnctapersm 2", [65, 1, 1]));
    assert!(run(".reqntid 32, 2, 1", [32, 2, 1]));
    assert!(!run(".reqntid 32, 2, 1", [64, 1, 1]));
}

#[test]
fn what_is_not_known_is_named_with_its_line() {
    for (body, name) in [
        ("frob.u32 %r1, %r2;", "unknown opcode `frob.u32`"),
        ("add.frob.u32 %r1, %r2, %r3;", "`.frob` of `add.frob.u32`"),
        (
            "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%r1}, {%r1}, {%r1}, {%r1};",
            "mma",
        ),
        (
            "add.u32 %r1, %r2, %nope;",
            "no register or variable `%nope`",
        ),
        ("bra NOWHERE;", "no label `NOWHERE`"),
        ("add.u32 %r1, %r2;", "expected 3 operands, got 2"),
        ("call vprintf;", "no function `vprintf`"),
        ("fma.rz.f64 %rd0, %rd1, %rd2, %rd3;", "fma.rz.f64"),
    ] {
        let module = module_of(body);
        let error = module.entry("k").expect("one entry").unsupported();
        let error = error.unwrap_or_else(|| panic!("`{body}` was taken"));
        assert!(error.message().contains(name), "{error}");
        assert_eq!(error.line(), 14, "{error}");
        let shape = Launch {
            grid: [1, 1, 1],
            block: [1, 1, 1],
            dynamic_shared: 0,
            params: &[Param::U64(0)],
        };
        let result = launch(&module, &mut Memory::new(), "k", &shape);
        assert!(matches!(result, Err(LaunchError::Unsupported { .. })));
    }
}

#[test]
fn text_that_is_no_ptx_is_refused() {
    for text in [
        "",
        "hello",
        ".version 7.0\n.entry k( {",
        ".version 7.0\n.global .u32 x = ;",
        ".version 7.0\n.entry k() { add.u32",
    ] {
        assert!(Module::parse(text).is_err(), "{text}");
    }
    let twice = ".version 7.0\n.address_size 64\n.entry k() { ret; }\n.entry k() { ret; }";
    assert!(Module::parse(twice).is_err_and(|error| error.message().contains("defined twice")));
    let recursive =
        ".version 7.0\n.address_size 64\n.func f() { call f; ret; }\n.entry k() { call f; ret; }";
    let module = Module::parse(recursive).expect("PTX");
    let error = module.entry("k").expect("one entry").unsupported();
    assert!(error.is_some_and(|error| error.message().contains("calls itself")));
}
