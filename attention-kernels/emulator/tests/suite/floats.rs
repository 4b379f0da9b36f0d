//! Opcodes on floats, comparisons and conversions against values worked out by hand.

use crate::opcodes::{wide, word};

/// [`word`] with floats.
fn float(inst: &str, sources: &[f32]) -> f32 {
    let bits: Vec<u32> = sources.iter().map(|source| source.to_bits()).collect();
    f32::from_bits(word(inst, &bits))
}

/// Whether the instruction leaves `%p0` true.
fn holds(inst: &str, sources: &[u32]) -> bool {
    word(&format!("{inst}\nselp.u32 %r0, 1, 0, %p0;"), sources) == 1
}

const M: u32 = u32::MAX;

#[test]
fn floats() {
    let tiny = f32::from_bits(1);
    for (inst, sources, result) in [
        ("add.f32 %r0, %r1, %r2;", &[1.5, 2.25][..], 3.75),
        ("sub.f32 %r0, %r1, %r2;", &[1.5, 2.25], -0.75),
        ("mul.f32 %r0, %r1, %r2;", &[1.5, -2.0], -3.0),
        ("mul.sat.f32 %r0, %r1, %r2;", &[1.5, 2.0], 1.0),
        (
            "fma.rn.f32 %r0, %r1, %r2, %r3;",
            &[1.0 + f32::EPSILON, 1.0 - f32::EPSILON, -1.0],
            -f32::EPSILON * f32::EPSILON,
        ),
        ("add.rz.f32 %r0, %r1, %r2;", &[1.0, 1e-20], 1.0),
        (
            "add.rp.f32 %r0, %r1, %r2;",
            &[1.0, 1e-20],
            1.0 + f32::EPSILON,
        ),
        (
            "add.rm.f32 %r0, %r1, %r2;",
            &[1.0, -1e-20],
            1.0 - f32::EPSILON / 2.0,
        ),
        (
            "fma.rm.f32 %r0, %r1, %r2, %r3;",
            &[-1e-20, 1e-20, -1.0],
            -1.0 - f32::EPSILON,
        ),
        (
            "mul.rz.f32 %r0, %r1, %r2;",
            &[1.0 + f32::EPSILON, 1.0 + f32::EPSILON],
            1.0 + 2.0 * f32::EPSILON,
        ),
        ("add.f32 %r0, %r1, %r2;", &[tiny, tiny], 2.0 * tiny),
        ("add.ftz.f32 %r0, %r1, %r2;", &[tiny, tiny], 0.0),
        ("mul.ftz.f32 %r0, %r1, %r2;", &[f32::MIN_POSITIVE, 0.5], 0.0),
        ("div.rn.f32 %r0, %r1, %r2;", &[1.0, 3.0], 1.0 / 3.0),
        (
            "div.approx.f32 %r0, %r1, %r2;",
            &[1.0, -0.0],
            f32::NEG_INFINITY,
        ),
        ("div.full.f32 %r0, %r1, %r2;", &[9.0, 2.0], 4.5),
        ("rcp.rn.f32 %r0, %r1;", &[4.0], 0.25),
        ("sqrt.rn.f32 %r0, %r1;", &[2.25], 1.5),
        ("rsqrt.approx.f32 %r0, %r1;", &[0.25], 2.0),
        ("ex2.approx.f32 %r0, %r1;", &[-3.0], 0.125),
        ("ex2.approx.ftz.f32 %r0, %r1;", &[-130.0], 0.0),
        ("lg2.approx.f32 %r0, %r1;", &[32.0], 5.0),
        ("sin.approx.f32 %r0, %r1;", &[0.0], 0.0),
        ("cos.approx.f32 %r0, %r1;", &[0.0], 1.0),
        ("tanh.approx.f32 %r0, %r1;", &[100.0], 1.0),
        ("neg.f32 %r0, %r1;", &[2.0], -2.0),
        ("abs.f32 %r0, %r1;", &[-2.0], 2.0),
        ("copysign.f32 %r0, %r1, %r2;", &[-1.0, 3.0], -3.0),
        ("min.f32 %r0, %r1, %r2;", &[f32::NAN, 3.0], 3.0),
        ("max.f32 %r0, %r1, %r2;", &[3.0, f32::NAN], 3.0),
        ("min.f32 %r0, %r1, %r2;", &[0.0, -0.0], -0.0),
        ("max.f32 %r0, %r1, %r2;", &[-0.0, 0.0], 0.0),
        ("max.f32 %r0, %r1, %r2;", &[-2.0, -3.0], -2.0),
    ] {
        assert_eq!(
            float(inst, sources).to_bits(),
            result.to_bits(),
            "{inst} {sources:?}"
        );
    }
    for inst in [
        "min.NaN.f32 %r0, %r1, %r2;",
        "max.NaN.f32 %r0, %r1, %r2;",
        "add.f32 %r0, %r1, %r2;",
    ] {
        let bits = word(inst, &[0xFFC0_1234, 0x3F80_0000]);
        assert_eq!(bits, 0x7FFF_FFFF, "{inst}");
    }
}

#[test]
fn doubles() {
    let two = "mov.f64 %rd1, 0d3FF8000000000000; mov.f64 %rd2, 0dC002000000000000;";
    for (inst, result) in [
        ("add.f64 %rd0, %rd1, %rd2;", 1.5 - 2.25),
        ("sub.f64 %rd0, %rd1, %rd2;", 3.75),
        ("mul.f64 %rd0, %rd1, %rd2;", 1.5 * -2.25),
        ("fma.rn.f64 %rd0, %rd1, %rd1, %rd2;", 0.0),
        ("div.rn.f64 %rd0, %rd1, %rd2;", 1.5 / -2.25),
        ("rcp.rn.f64 %rd0, %rd1;", 1.0 / 1.5),
        ("sqrt.rn.f64 %rd0, %rd1;", 1.5_f64.sqrt()),
        ("min.f64 %rd0, %rd1, %rd2;", -2.25),
        ("abs.f64 %rd0, %rd2;", 2.25),
        ("cvt.rn.f32.f64 %r1, %rd2; cvt.f64.f32 %rd0, %r1;", -2.25),
        ("cvt.rni.f64.f64 %rd0, %rd2;", -2.0),
        ("cvt.rn.f64.s32 %rd0, -7;", -7.0),
    ] {
        assert_eq!(
            f64::from_bits(wide(&format!("{two}{inst}"))),
            result,
            "{inst}"
        );
    }
}

#[test]
fn comparisons() {
    let (one, two, nan) = (0x3F80_0000, 0x4000_0000, 0x7FC0_0000);
    for (how, less, same, more, unordered) in [
        ("eq", false, true, false, false),
        ("ne", true, false, true, false),
        ("lt", true, false, false, false),
        ("le", true, true, false, false),
        ("gt", false, false, true, false),
        ("ge", false, true, true, false),
        ("equ", false, true, false, true),
        ("neu", true, false, true, true),
        ("ltu", true, false, false, true),
        ("leu", true, true, false, true),
        ("gtu", false, false, true, true),
        ("geu", false, true, true, true),
        ("num", true, true, true, false),
        ("nan", false, false, false, true),
    ] {
        let inst = format!("setp.{how}.f32 %p0, %r1, %r2;");
        for (a, b, result) in [
            (one, two, less),
            (one, one, same),
            (two, one, more),
            (nan, one, unordered),
            (one, nan, unordered),
        ] {
            assert_eq!(holds(&inst, &[a, b]), result, "{how} {a:x} {b:x}");
        }
    }
    for (inst, result) in [
        ("setp.lt.s32 %p0, %r1, %r2;", true),
        ("setp.lt.u32 %p0, %r1, %r2;", false),
        ("setp.hi.u32 %p0, %r1, %r2;", true),
        ("setp.ls.u32 %p0, %r1, %r2;", false),
        ("setp.ge.s32 %p0, %r1, %r2;", false),
        ("setp.ne.b32 %p0, %r1, %r2;", true),
        ("testp.notanumber.f32 %p0, %r1;", true),
        ("testp.finite.f32 %p0, %r2;", true),
        ("testp.subnormal.f32 %p0, %r2;", true),
        ("testp.normal.f32 %p0, %r2;", false),
        ("testp.infinite.f32 %p0, %r1;", false),
        ("testp.number.f32 %p0, %r1;", false),
    ] {
        assert_eq!(holds(inst, &[M, 1]), result, "{inst}");
    }
    // With .ftz the smallest number is 0.
    assert!(holds("setp.eq.ftz.f32 %p0, %r1, %r2;", &[1, 0]));
}

#[test]
fn conversions() {
    let bits = |number: f32| number.to_bits();
    for (inst, source, result) in [
        ("cvt.rni.s32.f32 %r0, %r1;", bits(2.5), 2),
        ("cvt.rzi.s32.f32 %r0, %r1;", bits(-2.9), M - 1),
        ("cvt.rmi.s32.f32 %r0, %r1;", bits(-2.1), M - 2),
        ("cvt.rpi.s32.f32 %r0, %r1;", bits(2.1), 3),
        ("cvt.rzi.s32.f32 %r0, %r1;", bits(1e20), 0x7FFF_FFFF),
        ("cvt.rzi.u32.f32 %r0, %r1;", bits(-5.0), 0),
        ("cvt.rni.u32.f32 %r0, %r1;", bits(1e20), M),
        ("cvt.rzi.s32.f32 %r0, %r1;", 0x7FC0_0000, 0),
        ("cvt.rni.s32.f32 %r0, %r1;", 0x7FC0_0000, 0),
        ("cvt.rni.f32.f32 %r0, %r1;", bits(3.5), bits(4.0)),
        ("cvt.rmi.f32.f32 %r0, %r1;", bits(-0.5), bits(-1.0)),
        ("cvt.rzi.f32.f32 %r0, %r1;", bits(-0.5), bits(-0.0)),
        ("cvt.sat.f32.f32 %r0, %r1;", bits(7.0), bits(1.0)),
        ("cvt.sat.f32.f32 %r0, %r1;", 0x7FC0_0000, 0),
        ("cvt.ftz.f32.f32 %r0, %r1;", 0x8000_0001, 0x8000_0000),
        ("cvt.rn.f32.s32 %r0, %r1;", M - 1, bits(-2.0)),
        ("cvt.rn.f32.u32 %r0, %r1;", M, bits(4_294_967_296.0)),
        ("cvt.rz.f32.u32 %r0, %r1;", M, bits(4_294_967_040.0)),
        ("cvt.rp.f32.s32 %r0, %r1;", 0x0100_0001, bits(16_777_218.0)),
        ("cvt.rn.f32.s32 %r0, %r1;", 0x0100_0001, bits(16_777_216.0)),
        ("cvt.u32.u8 %r0, %r1;", 0x1FE, 0xFE),
        ("cvt.s32.s8 %r0, %r1;", 0x1FE, M - 1),
        ("cvt.s8.s32 %r0, %r1;", 0x1FE, M - 1),
        ("cvt.sat.u8.s32 %r0, %r1;", M, 0),
        ("cvt.sat.s8.s32 %r0, %r1;", 300, 127),
        ("cvt.rn.f16.f32 %r0, %r1;", bits(65519.9), 0x7BFF),
        ("cvt.rn.f16.f32 %r0, %r1;", bits(65520.0), 0x7C00),
        ("cvt.rz.f16.f32 %r0, %r1;", bits(1e9), 0x7BFF),
        ("cvt.rn.relu.f16.f32 %r0, %r1;", bits(-1.0), 0),
        ("cvt.rn.f16.s32 %r0, %r1;", 2049, 0x6800),
        ("cvt.rzi.s32.f16 %r0, %r1;", 0xC500, M - 4),
        ("cvt.rn.bf16.f32 %r0, %r1;", 0x3F80_8000, 0x3F80),
        ("cvt.rn.bf16.f32 %r0, %r1;", 0x3F81_8000, 0x3F82),
        ("cvt.rz.bf16.f32 %r0, %r1;", 0x3F80_FFFF, 0x3F80),
        ("cvt.f32.bf16 %r0, %r1;", 0x4040, bits(3.0)),
        ("cvt.rn.f16x2.f32 %r0, %r1, %r1;", bits(1.0), 0x3C00_3C00),
        (
            "cvt.rn.bf16x2.f32 %r0, %r1, 0f40000000;",
            bits(1.0),
            0x3F80_4000,
        ),
    ] {
        assert_eq!(word(inst, &[source]), result, "{inst} {source:#x}");
    }
    for (body, result) in [
        (
            "mov.b32 %r1, 0x7FC00000; cvt.rzi.s64.f32 %rd0, %r1;",
            1 << 63,
        ),
        ("mov.b32 %r1, -1; cvt.s64.s32 %rd0, %r1;", u64::MAX),
        ("mov.b32 %r1, -1; cvt.u64.u32 %rd0, %r1;", 0xFFFF_FFFF),
        (
            "mov.b64 %rd1, 0x8000000000000401; cvt.rn.f32.u64 %r1, %rd1; cvt.u64.u32 %rd0, %r1;",
            0x5F00_0000,
        ),
        (
            "mov.b64 %rd1, 0x8000008000000001; cvt.rn.f32.u64 %r1, %rd1; cvt.u64.u32 %rd0, %r1;",
            0x5F00_0001,
        ),
    ] {
        assert_eq!(wide(body), result, "{body}");
    }
}

#[test]
fn halves() {
    for (inst, sources, result) in [
        ("add.f16 %r0, %r1, %r2;", &[0x3C00, 0x4000][..], 0x4200),
        ("sub.rn.f16 %r0, %r1, %r2;", &[0x3C00, 0x4000], 0xBC00),
        ("mul.f16 %r0, %r1, %r2;", &[0x4200, 0x4200], 0x4880),
        (
            "add.f16x2 %r0, %r1, %r2;",
            &[0x3C00_4000, 0x3C00_3C00],
            0x4000_4200,
        ),
        (
            "fma.rn.f16x2 %r0, %r1, %r2, %r3;",
            &[0x3C00_4000, 0x4000_4000, 0x3C00_0000],
            0x4200_4400,
        ),
        // 1 + 2^-11 lies halfway, 1 + 2^-11 + 2^-21 above.
        (
            "fma.rn.f16 %r0, %r1, %r2, %r3;",
            &[0x1000, 0x3C00, 0x3C00],
            0x3C00,
        ),
        (
            "fma.rn.f16 %r0, %r1, %r2, %r3;",
            &[0x1001, 0x3C00, 0x3C00],
            0x3C01,
        ),
        (
            "fma.rn.bf16 %r0, %r1, %r2, %r3;",
            &[0x3F80, 0x3F80, 0x3F80],
            0x4000,
        ),
        ("max.bf16 %r0, %r1, %r2;", &[0x7FC0, 0x3F80], 0x3F80),
        ("max.NaN.bf16 %r0, %r1, %r2;", &[0x7FC0, 0x3F80], 0x7FFF),
        ("min.f16 %r0, %r1, %r2;", &[0x0000, 0x8000], 0x8000),
        ("neg.f16x2 %r0, %r1;", &[0x3C00_3C00], 0xBC00_BC00),
        ("abs.bf16 %r0, %r1;", &[0xBF80], 0x3F80),
        ("add.ftz.f16 %r0, %r1, %r2;", &[0x0001, 0x0001], 0),
    ] {
        assert_eq!(word(inst, sources), result, "{inst} {sources:x?}");
    }
    assert!(holds("setp.gt.f16 %p0, %r1, %r2;", &[0x4000, 0x3C00]));
    assert!(!holds("setp.gt.bf16 %p0, %r1, %r2;", &[0x7FC0, 0x3C00]));
}
