//! From a place in the program to a line of source.

use std::process::Command;

/// The source line of each of `codes`, offsets into the program's own file. `None` where there is no debug information, no
/// `addr2line`, or where the offset is 0.
pub(crate) fn of(codes: &[usize]) -> Vec<Option<String>> {
    let unknown = vec![None; codes.len()];
    if codes.iter().all(|&code| code == 0) {
        return unknown;
    }
    let Ok(program) = std::env::current_exe() else {
        return unknown;
    };
    let mut command = Command::new("addr2line");
    command.arg("--basenames").arg("--exe").arg(program);
    command.args(codes.iter().map(|code| format!("{code:#x}")));
    let Ok(output) = command.output() else {
        return unknown;
    };
    let text = String::from_utf8_lossy(&output.stdout);
    let mut lines: Vec<_> = text.lines().map(parse).collect();
    lines.resize(codes.len(), None);
    lines
}

/// `file.cu:12` of a line of `addr2line`, which may go on after a space.
fn parse(line: &str) -> Option<String> {
    let place = line.split(' ').next()?;
    let (file, number) = place.rsplit_once(':')?;
    let known = file != "??" && number.parse::<u32>().is_ok_and(|number| number > 0);
    known.then(|| place.to_owned())
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn lines_of_addr2line() {
        let known = Some("right.cu:12".to_owned());
        assert_eq!(parse("right.cu:12"), known);
        assert_eq!(parse("right.cu:12 (discriminator 3)"), known);
        for unknown in ["??:0", "??:?", "right.cu:?", "right.cu:0", ""] {
            assert_eq!(parse(unknown), None, "{unknown}");
        }
    }
}
