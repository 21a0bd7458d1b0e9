//! Runs the examples of the README as they are written, on the images of `vhd demo`; the output must match the README.

use std::path::Path;

use crate::disk::{TestFolder, command, content, run};

/// A command line and the lines that follow it.
struct Example {
    line: String,
    printed: String,
}

#[test]
fn the_examples_print_what_the_readme_says() {
    let folder = images();
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let readme = String::from_utf8(content(readme)).unwrap();
    let mut count = 0;
    for heading in [
        "## The main job\n",
        "## Points in time\n",
        "## To the cloud and back\n",
    ] {
        let section = readme.split(heading).nth(1).unwrap();
        let section = section.split("\n## ").next().unwrap();
        let mut exports = String::new();
        for example in examples(section) {
            let Example { line, printed } = example;
            if line.starts_with("export ") {
                exports.extend([&line, "; "]);
                continue;
            }
            let found = shell(&folder, &format!("{exports}{{ {line}\n}} 2>&1"));
            assert!(
                is_as(&found, &printed),
                "$ {line}\nprints:\n{found}\nthe README says:\n{printed}"
            );
            count += 1;
        }
    }
    assert!(count >= 15, "only {count} examples were found");
}

#[test]
fn the_picture_is_what_the_command_draws() {
    let folder = images();
    let script = "for day in mon tue wed; do \
        vhd snapshot create -q --init --store s --disk web --name $day $day*.vhd || exit; \
        done; vhd snapshot map --store s --format svg";
    let drawn = shell(&folder, script);
    let picture = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/points.svg");
    assert_eq!(drawn, String::from_utf8(content(picture)).unwrap());
}

/// Creates the folder of the README's first example.
fn images() -> TestFolder {
    let folder = TestFolder::new();
    run(&mut command!("vhd", "demo", "--keep", folder.path(".")));
    folder
}

/// Returns the examples that need neither another machine nor an account of another service.
fn examples(section: &str) -> Vec<Example> {
    let blocks = section.split("```console\n").skip(1);
    let blocks = blocks.map(|block| block.split("```").next().unwrap());
    let mut examples: Vec<Example> = Vec::new();
    for line in blocks
        .filter(|block| !block.contains("ssh ") && !block.contains("$ az "))
        .flat_map(str::lines)
    {
        match (line.strip_prefix("$ "), examples.last_mut()) {
            (Some(line), _) => examples.push(Example {
                line: line.to_owned(),
                printed: String::new(),
            }),
            (None, Some(example)) => example.printed.extend([line, "\n"]),
            (None, None) => panic!("{line}: output of nothing"),
        }
    }
    examples
}

fn shell(folder: &TestFolder, script: &str) -> String {
    let programs = Path::new(env!("CARGO_BIN_EXE_vhd")).parent().unwrap();
    let mut path = programs.as_os_str().to_owned();
    path.push(":");
    path.push(std::env::var_os("PATH").unwrap_or_default());
    // With any exit code: some examples show failures.
    let mut shell = command!("sh", "-c", script);
    let output = shell
        .current_dir(folder.path("."))
        .env("PATH", path)
        .output();
    String::from_utf8(output.unwrap().stdout).unwrap()
}

/// Returns whether a text is as expected. Empty lines at the end are ignored, `…` matches anything within a line, and
/// the space that files take may vary between file systems.
fn is_as(found: &str, expected: &str) -> bool {
    let (found, expected) = (found.trim_end(), expected.trim_end());
    let takes_space = |line: &str| {
        [": base, ", " copied, ", " used"]
            .iter()
            .any(|part| line.contains(part))
    };
    let same = |(found, expected): (&str, &str)| {
        if takes_space(expected) {
            return about_equal(found, expected);
        }
        elided(found, expected)
    };
    found.lines().count() == expected.lines().count()
        && found.lines().zip(expected.lines()).all(same)
}

/// Returns whether the words are equal and the numbers differ by less than 1 %.
fn about_equal(found: &str, expected: &str) -> bool {
    let number = |word: &str| word.trim_start_matches('(').parse::<f64>();
    let same = |(found, expected): (&str, &str)| match (number(found), number(expected)) {
        (Ok(found), Ok(expected)) => (found - expected).abs() < expected / 100.0,
        _ => found == expected,
    };
    let [found, expected] =
        [found, expected].map(|line| line.split_whitespace().collect::<Vec<_>>());
    found.len() == expected.len() && found.into_iter().zip(expected).all(same)
}

fn elided(found: &str, expected: &str) -> bool {
    let mut parts = expected.split('…');
    let Some(mut rest) = parts.next().and_then(|start| found.strip_prefix(start)) else {
        return false;
    };
    let mut last = "";
    for part in parts {
        let Some(at) = rest.find(part) else {
            return false;
        };
        (rest, last) = (&rest[at + part.len()..], part);
    }
    rest.is_empty() || (last.is_empty() && expected.ends_with('…'))
}
