//! Opcodes on integers and memory against values worked out by hand.

use crate::run_body;

/// What `body` leaves in `%rd0`.
pub(crate) fn wide(body: &str) -> u64 {
    let body = format!("{body}\nst.global.u64 [%rd7], %rd0;");
    let (bytes, _) = run_body(&body, 1, 64, 64).unwrap_or_else(|error| panic!("{error}\n{body}"));
    u64::from_le_bytes(bytes[..8].try_into().expect("8 bytes"))
}

/// What the instruction, with 32-bit sources in `%r1` to `%r3`, leaves in `%r0`.
pub(crate) fn word(inst: &str, sources: &[u32]) -> u32 {
    let names = ["%r1", "%r2", "%r3"];
    let set = names.iter().zip(sources);
    let set: String = set
        .map(|(name, value)| format!("mov.b32 {name}, {value:#x};\n"))
        .collect();
    let result = wide(&format!("{set}{inst}\ncvt.u64.u32 %rd0, %r0;"));
    u32::try_from(result).expect("32 bits")
}

const M: u32 = u32::MAX;

#[test]
fn integers() {
    for (inst, sources, result) in [
        ("add.s32 %r0, %r1, %r2;", &[M, 2][..], 1),
        ("add.sat.s32 %r0, %r1, %r2;", &[0x7FFF_FFFF, 1], 0x7FFF_FFFF),
        ("sub.sat.s32 %r0, %r1, %r2;", &[0x8000_0000, 1], 0x8000_0000),
        ("sub.u32 %r0, %r1, %r2;", &[1, 2], M),
        ("mul.lo.s32 %r0, %r1, %r2;", &[M, 7], M - 6),
        ("mul.hi.s32 %r0, %r1, %r2;", &[M, 7], M),
        ("mul.hi.u32 %r0, %r1, %r2;", &[M, 7], 6),
        ("mad.lo.s32 %r0, %r1, %r2, %r3;", &[3, 4, 5], 17),
        ("mad.hi.u32 %r0, %r1, %r2, %r3;", &[M, 7, 5], 11),
        ("mul24.lo.u32 %r0, %r1, %r2;", &[0x0100_0003, 5], 15),
        ("mul24.hi.s32 %r0, %r1, %r2;", &[0x00FF_FFFF, 0x10000], M),
        ("mad24.lo.s32 %r0, %r1, %r2, %r3;", &[0x00FF_FFFF, 2, 5], 3),
        ("sad.s32 %r0, %r1, %r2, %r3;", &[M, 3, 10], 14),
        ("sad.u32 %r0, %r1, %r2, %r3;", &[5, 3, 10], 12),
        ("div.s32 %r0, %r1, %r2;", &[M - 6, 2], M - 2),
        ("div.u32 %r0, %r1, %r2;", &[7, 2], 3),
        ("div.u32 %r0, %r1, %r2;", &[7, 0], M),
        ("rem.s32 %r0, %r1, %r2;", &[M - 6, 4], M - 2),
        ("rem.u32 %r0, %r1, %r2;", &[M, 10], 5),
        ("min.s32 %r0, %r1, %r2;", &[M, 1], M),
        ("min.u32 %r0, %r1, %r2;", &[M, 1], 1),
        ("max.s32 %r0, %r1, %r2;", &[M, 1], 1),
        ("max.u32 %r0, %r1, %r2;", &[M, 1], M),
        ("neg.s32 %r0, %r1;", &[5], M - 4),
        ("abs.s32 %r0, %r1;", &[M - 4], 5),
    ] {
        assert_eq!(word(inst, sources), result, "{inst} {sources:x?}");
    }
}

#[test]
fn bits() {
    for (inst, sources, result) in [
        ("and.b32 %r0, %r1, %r2;", &[12, 10][..], 8),
        ("or.b32 %r0, %r1, %r2;", &[12, 10], 14),
        ("xor.b32 %r0, %r1, %r2;", &[12, 10], 6),
        ("not.b32 %r0, %r1;", &[12], M - 12),
        ("cnot.b32 %r0, %r1;", &[0], 1),
        ("cnot.b32 %r0, %r1;", &[9], 0),
        ("shl.b32 %r0, %r1, %r2;", &[3, 31], 0x8000_0000),
        ("shl.b32 %r0, %r1, %r2;", &[3, 32], 0),
        ("shr.u32 %r0, %r1, %r2;", &[M, 40], 0),
        ("shr.s32 %r0, %r1, %r2;", &[0x8000_0000, 40], M),
        ("shr.s32 %r0, %r1, %r2;", &[0x8000_0000, 4], 0xF800_0000),
        (
            "shf.l.wrap.b32 %r0, %r1, %r2, %r3;",
            &[0x8000_0001, 3, 33],
            7,
        ),
        (
            "shf.l.clamp.b32 %r0, %r1, %r2, %r3;",
            &[0x8000_0001, 3, 40],
            0x8000_0001,
        ),
        (
            "shf.r.wrap.b32 %r0, %r1, %r2, %r3;",
            &[2, 1, 1],
            0x8000_0001,
        ),
        ("shf.r.clamp.b32 %r0, %r1, %r2, %r3;", &[2, 9, 99], 9),
        ("lop3.b32 %r0, %r1, %r2, %r3, 0x96;", &[12, 10, 9], 15),
        ("lop3.b32 %r0, %r1, %r2, %r3, 0xE8;", &[12, 10, 9], 8),
        ("lop3.b32 %r0, %r1, %r2, %r3, 0xCA;", &[12, 10, 9], 9),
        ("bfe.u32 %r0, %r1, 4, 8;", &[0x1234_5678], 0x67),
        ("bfe.s32 %r0, %r1, 4, 4;", &[0x0000_00F0], M),
        ("bfe.s32 %r0, %r1, 28, 8;", &[0xA000_0000], 0xFFFF_FFFA),
        ("bfe.u32 %r0, %r1, 28, 8;", &[0xA000_0000], 0xA),
        ("bfe.u32 %r0, %r1, 0, 0;", &[M], 0),
        ("bfi.b32 %r0, %r1, %r2, 8, 4;", &[0xAB, M], 0xFFFF_FBFF),
        ("bfi.b32 %r0, %r1, %r2, 32, 4;", &[0xAB, 7], 7),
        (
            "prmt.b32 %r0, %r1, %r2, 0x7351;",
            &[0x4433_2211, 0x8877_6655],
            0x8844_6622,
        ),
        (
            "prmt.b32 %r0, %r1, %r2, 0x000C;",
            &[0x4433_2211, 0x8877_6680],
            0x1111_11FF,
        ),
        (
            "prmt.b32.f4e %r0, %r1, %r2, 1;",
            &[0x4433_2211, 0x8877_6655],
            0x5544_3322,
        ),
        (
            "prmt.b32.b4e %r0, %r1, %r2, 1;",
            &[0x4433_2211, 0x8877_6655],
            0x7788_1122,
        ),
        (
            "prmt.b32.rc8 %r0, %r1, %r2, 2;",
            &[0x4433_2211, 0],
            0x3333_3333,
        ),
        (
            "prmt.b32.ecl %r0, %r1, %r2, 2;",
            &[0x4433_2211, 0],
            0x4433_3333,
        ),
        (
            "prmt.b32.ecr %r0, %r1, %r2, 1;",
            &[0x4433_2211, 0],
            0x2222_2211,
        ),
        (
            "prmt.b32.rc16 %r0, %r1, %r2, 1;",
            &[0x4433_2211, 0],
            0x4433_4433,
        ),
        ("popc.b32 %r0, %r1;", &[0xF0F1], 9),
        ("clz.b32 %r0, %r1;", &[0xF0], 24),
        ("clz.b32 %r0, %r1;", &[0], 32),
        ("brev.b32 %r0, %r1;", &[0x0000_0003], 0xC000_0000),
        ("bfind.u32 %r0, %r1;", &[0x0400], 10),
        ("bfind.s32 %r0, %r1;", &[M - 4], 2),
        ("bfind.shiftamt.u32 %r0, %r1;", &[0x0400], 21),
        ("bfind.u32 %r0, %r1;", &[0], M),
        ("slct.u32.s32 %r0, %r1, %r2, %r3;", &[5, 6, M], 6),
        ("slct.u32.f32 %r0, %r1, %r2, %r3;", &[5, 6, 0], 5),
        ("set.lt.u32.s32 %r0, %r1, %r2;", &[M, 0], M),
        ("set.lt.f32.u32 %r0, %r1, %r2;", &[M, 0], 0),
        ("set.gt.f32.u32 %r0, %r1, %r2;", &[M, 0], 0x3F80_0000),
    ] {
        assert_eq!(word(inst, sources), result, "{inst} {sources:x?}");
    }
}

#[test]
fn other_widths() {
    for (body, result) in [
        (
            "mov.b32 %r1, -3; mov.b32 %r2, 5; mul.wide.s32 %rd0, %r1, %r2;",
            15_u64.wrapping_neg(),
        ),
        (
            "mov.b32 %r1, -3; mov.b32 %r2, 5; mul.wide.u32 %rd0, %r1, %r2;",
            0xFFFF_FFFD * 5,
        ),
        (
            "mov.b32 %r1, -3; mov.b64 %rd1, 4; mad.wide.s32 %rd0, %r1, 5, %rd1;",
            11_u64.wrapping_neg(),
        ),
        (
            "mov.b16 %h1, -2; mul.wide.s16 %r0, %h1, 3; cvt.s64.s32 %rd0, %r0;",
            6_u64.wrapping_neg(),
        ),
        (
            "mov.b16 %h1, -2; add.u16 %h1, %h1, 5; cvt.u64.u16 %rd0, %h1;",
            3,
        ),
        ("mov.b64 %rd1, -1; mul.hi.u64 %rd0, %rd1, 9;", 8),
        ("mov.b64 %rd1, -1; mul.hi.s64 %rd0, %rd1, 9;", u64::MAX),
        (
            "mov.b64 %rd1, -7; div.s64 %rd0, %rd1, 2;",
            3_u64.wrapping_neg(),
        ),
        ("mov.b64 %rd1, -7; rem.u64 %rd0, %rd1, 10;", 9),
        ("mov.b64 %rd1, 1; shl.b64 %rd0, %rd1, 63;", 1 << 63),
        ("mov.b64 %rd1, -1; shr.s64 %rd0, %rd1, 70;", u64::MAX),
        (
            "mov.b64 %rd1, -1; popc.b64 %r0, %rd1; cvt.u64.u32 %rd0, %r0;",
            64,
        ),
        (
            "mov.b64 %rd1, 1; clz.b64 %r0, %rd1; cvt.u64.u32 %rd0, %r0;",
            63,
        ),
        (
            "mov.b64 %rd1, 0; bfind.u64 %r0, %rd1; cvt.u64.u32 %rd0, %r0;",
            0xFFFF_FFFF,
        ),
        ("mov.b64 %rd1, 1; brev.b64 %rd0, %rd1;", 1 << 63),
        ("mov.b64 %rd1, 7; bfi.b64 %rd0, %rd1, 0, 40, 3;", 7 << 40),
        (
            "mov.b64 %rd1, 0x1122334455667788; mov.b64 {%r1, %r2}, %rd1; mov.b64 %rd0, {%r2, %r1};",
            0x5566_7788_1122_3344,
        ),
        (
            "mov.b32 %r1, 0x11223344; mov.b32 {%h1, %h2}, %r1; mov.b32 %r0, {%h2, %h1}; cvt.u64.u32 %rd0, %r0;",
            0x3344_1122,
        ),
        (
            "mov.b64 %rd1, 0x1122334455667788; mov.b64 {%h1, %h2, %h3, %h4}, %rd1; cvt.u64.u16 %rd0, %h3;",
            0x3344,
        ),
        ("setp.eq.u32 %p0|%p1, 1, 2; selp.b64 %rd0, 1, 2, %p1;", 1),
        (
            "mov.pred %p1, 1; setp.eq.and.u32 %p0, 1, 1, !%p1; selp.b64 %rd0, 1, 2, %p0;",
            2,
        ),
        (
            "mov.pred %p1, 0; setp.eq.or.u32 %p0, 1, 2, !%p1; selp.b64 %rd0, 1, 2, %p0;",
            1,
        ),
        (
            "mov.pred %p1, 1; setp.eq.xor.u32 %p0, 1, 1, %p1; selp.b64 %rd0, 1, 2, %p0;",
            2,
        ),
        (
            "mov.pred %p1, 1; not.pred %p2, %p1; or.pred %p3, %p1, %p2; and.pred %p4, %p3, %p2; xor.pred %p5, %p4, %p1; selp.b64 %rd0, 1, 2, %p5;",
            1,
        ),
        (
            "mov.u32 %r1, dynamic; cvta.shared.u64 %rd1, dynamic; isspacep.shared %p0, %rd1; isspacep.global %p1, %rd7; and.pred %p0, %p0, %p1; selp.b64 %rd0, 1, 2, %p0;",
            1,
        ),
        (
            "cvta.shared.u64 %rd1, dynamic; mov.b32 %r1, 77; st.u32 [%rd1+8], %r1; cvta.to.shared.u64 %rd2, %rd1; ld.shared.s32 %rd0, [%rd2+8];",
            77,
        ),
        (
            ".local .align 8 .b8 frame[16]; mov.u64 %rd1, frame; mov.b64 %rd2, -5; st.local.u8 [%rd1+3], %rd2; ld.local.s8 %rd0, [frame+3];",
            5_u64.wrapping_neg(),
        ),
        (
            "mov.u32 %r1, %ntid.x; mov.u32 %r2, %nctaid.y; mad.lo.u32 %r0, %r1, 10, %r2; cvt.u64.u32 %rd0, %r0;",
            11,
        ),
    ] {
        assert_eq!(wide(body), result, "{body}");
    }
}

#[test]
fn atomics() {
    for (op, old, value, new) in [
        ("add.u32", 5_u32, 7, 12_u32),
        ("add.f32", 0x3F80_0000, 0x4000_0000, 0x4040_0000),
        ("add.noftz.f16x2", 0x3C00_3C00, 0x3C00_4000, 0x4000_4200),
        ("min.s32", 5, M, M),
        ("min.u32", 5, M, 5),
        ("max.s32", 5, M, 5),
        ("max.u32", 5, M, M),
        ("and.b32", 12, 10, 8),
        ("or.b32", 12, 10, 14),
        ("xor.b32", 12, 10, 6),
        ("exch.b32", 12, 10, 10),
        ("inc.u32", 5, 6, 6),
        ("inc.u32", 6, 6, 0),
        ("dec.u32", 0, 6, 6),
        ("dec.u32", 7, 6, 6),
        ("dec.u32", 5, 6, 4),
    ] {
        for (space, base) in [("global", "%rd7+16"), ("shared", "dynamic+16")] {
            let body = format!(
                "mov.b32 %r1, {old}; st.{space}.u32 [{base}], %r1;
                 atom.{space}.{op} %r2, [{base}], {value};
                 ld.{space}.u32 %r3, [{base}];
                 mov.b64 %rd0, {{%r2, %r3}};"
            );
            assert_eq!(
                wide(&body),
                u64::from(new) << 32 | u64::from(old),
                "{space} {op}"
            );
            let reduction = body.replace("atom.", "red.").replace("%r2, [", "[");
            if !op.starts_with("exch") {
                let reduction = reduction.replace("{%r2,", "{%r3,");
                assert_eq!(wide(&reduction) >> 32, u64::from(new), "{space} {op}");
            }
        }
    }
    let body = "mov.b64 %rd1, 9; st.global.u64 [%rd7+16], %rd1; atom.global.cas.b64 %rd2, [%rd7+16], 9, 4;
        atom.global.cas.b64 %rd3, [%rd7+16], 9, 5; atom.global.add.u64 %rd4, [%rd7+16], 100; ld.global.u64 %rd0, [%rd7+16];";
    assert_eq!(wide(body), 104);
}

/// Vectors, widths, hints and scopes of loads and stores.
#[test]
fn loads_and_stores() {
    let body = "
        mov.b32 %r1, 0x80FF8001;
        mov.b32 %r2, 7;
        st.global.cs.v4.b32 [%rd7+16], {%r1, %r2, %r1, %r2};
        ld.global.nc.L1::no_allocate.L2::128B.v2.u32 {%r3, %r4}, [%rd7+16];
        ld.volatile.global.s16 %r5, [%rd7+16];
        ld.relaxed.gpu.global.u8 %r6, [%rd7+18];
        ld.global.s8 %rd1, [%rd7+19];
        st.release.sys.global.u16 [%rd7+32], %r5;
        ld.acquire.gpu.global.u32 %r8, [%rd7+32];
        ld.global.ca.u64 %rd2, [%rd7+16];
        add.u32 %r9, %r3, %r4;";
    for (result, value) in [
        ("cvt.u64.u32 %rd0, %r9;", 0x80FF_8008),
        ("cvt.u64.u32 %rd0, %r5;", 0xFFFF_8001),
        ("cvt.u64.u32 %rd0, %r6;", 0xFF),
        ("mov.b64 %rd0, %rd1;", 0xFFFF_FFFF_FFFF_FF80),
        ("cvt.u64.u32 %rd0, %r8;", 0x0000_8001),
        ("mov.b64 %rd0, %rd2;", 0x7_80FF_8001),
    ] {
        assert_eq!(wide(&format!("{body}{result}")), value, "{result}");
    }
}
