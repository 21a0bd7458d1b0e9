//! Holds the layers: reads the sources and fails on any path that leads to a module on the same or a higher layer,
//! on anything outside the command line that prints, exits, or knows terminals or the environment, on anything
//! outside of storage that changes files, and on paths that are shown as they are.
//!
//! Unit tests are held to the same rules, except that they may change files; comments and documentation are not read.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test's helpers")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use proc_macro2::{Delimiter, Spacing, Span, TokenStream, TokenTree};

/// Top-level modules, lowest layer first. A module uses the rows above its own, and nothing of its own row.
const LAYERS: &[&[&str]] = &[
    &["text", "remedy"],
    &["error"],
    &["page", "progress"],
    &["parallel"],
    &["storage"],
    &["age", "image"],
    &["vhd", "diff", "blob", "inside"],
    &["cloud"],
    &["open", "files"],
    &["snapshot"],
    &["serve", "api"],
    &["cli"],
];

/// What only the command line may use: beginnings of paths, and why.
const CLI_ONLY_PATHS: &[(&[&str], &str)] = &[
    (&["clap"], "only src/cli parses arguments"),
    (&["clap_complete"], "only src/cli parses arguments"),
    (&["clap_mangen"], "only src/cli parses arguments"),
    (&["indicatif"], "only src/cli draws progress"),
    (&["signal_hook"], "only src/cli handles signals"),
    (&["std", "env"], "only src/cli reads the environment"),
    (&["std", "process", "exit"], "only src/cli exits"),
    (&["std", "process", "abort"], "nothing aborts"),
    (&["std", "io", "stdin"], "only src/cli knows stdin"),
    (&["std", "io", "stdout"], "only src/cli knows stdout"),
    (&["std", "io", "stderr"], "only src/cli knows stderr"),
    (&["std", "io", "IsTerminal"], "only src/cli knows terminals"),
];

/// What changes files or opens them for that: beginnings of paths. Only storage may use them, so that one place knows
/// all writes, and a test can stand there. The command line only makes its folders and the files of its demo so.
const CHANGES_FILES: &[&[&str]] = &[
    &["std", "fs", "*"],
    &["std", "fs", "File"],
    &["std", "fs", "OpenOptions"],
    &["std", "fs", "DirBuilder"],
    &["std", "fs", "copy"],
    &["std", "fs", "create_dir"],
    &["std", "fs", "create_dir_all"],
    &["std", "fs", "hard_link"],
    &["std", "fs", "remove_dir"],
    &["std", "fs", "remove_dir_all"],
    &["std", "fs", "remove_file"],
    &["std", "fs", "rename"],
    &["std", "fs", "set_permissions"],
    &["std", "fs", "soft_link"],
    &["std", "fs", "write"],
    &["std", "os", "unix", "fs", "*"],
    &["std", "os", "unix", "fs", "FileExt"],
    &["std", "os", "unix", "fs", "chown"],
    &["std", "os", "unix", "fs", "fchown"],
    &["std", "os", "unix", "fs", "lchown"],
    &["std", "os", "unix", "fs", "symlink"],
    &["rustix"],
    &["tempfile"],
];

/// What looks like our commands and options, and is for other programs or of them: beginnings of files' names, and the
/// texts; an empty one is anything.
const FOREIGN_COMMANDS: &[(&str, &str)] = &[
    ("blob/failure.rs", "az role assignment create --role"),
    (
        "blob/failure.rs",
        "az role assignment create \\\n                     --role",
    ),
    ("blob/failure.rs", "azcopy copy --blob-type PageBlob"),
    ("blob/token.rs", ""),
    ("cloud/manager.rs", "--output"),
    ("error/mod.rs", "ulimit -f"),
    ("files/foreign/", ""),
    ("files/apply/in_place/journal.rs", "ulimit -f"),
    ("snapshot/cloud_list.rs", "az snapshot list -o json"),
    ("storage/limits.rs", "ulimit -f"),
    ("storage/mounts.rs", "\"-o\""),
    ("storage/mounts.rs", "\"-u\""),
    ("storage/mounts.rs", "fuser -vm"),
];

/// Our commands with subcommands, as texts name them.
const PROGRAMS: &[&str] = &["vhd-diff", "vhd-apply"];

/// Macros that print.
const CLI_ONLY_MACROS: &[&str] = &["print", "println", "eprint", "eprintln", "dbg"];

#[test]
fn every_import_leads_to_a_lower_layer() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    walk(&src, &mut files);
    assert!(
        files.len() > LAYERS.len(),
        "only {} source files found in {}",
        files.len(),
        src.display()
    );
    let read = |file: &Path| fs::read_to_string(file).unwrap();
    let root_names = root_names(&read(&src.join("lib.rs")));
    let mut faults = Vec::new();
    for file in files {
        let name = file.strip_prefix(&src).unwrap().to_str().unwrap();
        faults.extend(check(name, &read(&file), &root_names));
    }
    assert!(
        faults.is_empty(),
        "{} imports against the layers (see the table in tests/layers.rs):\n{}",
        faults.len(),
        faults.join("\n")
    );
}

#[test]
fn only_the_command_line_names_commands_and_options() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    walk(&src, &mut files);
    let mut faults = Vec::new();
    for file in files {
        let name = file.strip_prefix(&src).unwrap().to_str().unwrap();
        let foreign: Vec<&str> = FOREIGN_COMMANDS
            .iter()
            .filter(|(of, _)| name.starts_with(of))
            .map(|(_, text)| *text)
            .collect();
        let ours = ["cli/", "bin/"];
        if ours.iter().any(|part| name.starts_with(part)) || foreign.contains(&"") {
            continue;
        }
        let source: TokenStream = fs::read_to_string(&file).unwrap().parse().unwrap();
        let mut texts = Vec::new();
        literals(source, &mut texts);
        let without = |text: &str| {
            let own = foreign.iter();
            own.fold(text.to_owned(), |text, word| text.replace(word, ""))
        };
        let named = texts
            .iter()
            .filter(|(_, text)| names_a_command(&without(text)));
        faults.extend(named.map(|(line, text)| format!("src/{name}:{line}: {text}")));
    }
    assert!(
        faults.is_empty(),
        "texts that name commands or options, for which there are steps of remedies (src/remedy):\n{}",
        faults.join("\n")
    );
}

#[test]
fn texts_with_commands_are_told_from_others() {
    for text in [
        "use --force",
        "--force",
        "(--from STORE)",
        "give it another name with -O raw",
        "vhd check lists all",
        "run vhd convert",
        "make it again with vhd-diff",
        "vhd snapshot {what}",
    ] {
        assert!(names_a_command(&format!("\"{text}\"")), "{text}");
    }
    for text in [
        "name it .vhd for a VHD",
        "the .vhd, the .v01 and so on",
        "{:04}-W{:02}",
        "-1",
        "vhd",
        "a -> b",
        "--",
    ] {
        assert!(!names_a_command(&format!("\"{text}\"")), "{text}");
    }
}

/// Whether the literal `text` has an option, or a command of ours.
fn names_a_command(text: &str) -> bool {
    let is_edge = |c: char| !(c.is_alphanumeric() || "-_./\\{}".contains(c));
    let words: Vec<&str> = text.split(is_edge).collect();
    let is_option = |word: &&str| {
        let (long, short) = (word.strip_prefix("--"), word.strip_prefix('-'));
        let letters = |name: &str| name.starts_with(|c: char| c.is_ascii_lowercase());
        long.is_some_and(letters)
            || short.is_some_and(|c| c.len() == 1 && c.chars().all(|c| c.is_ascii_alphabetic()))
    };
    let runs =
        |pair: &[&str]| pair[0] == "vhd" && pair[1].starts_with(|c: char| c.is_ascii_lowercase());
    words.iter().any(is_option)
        || words.iter().any(|word| PROGRAMS.contains(word))
        || words.windows(2).any(runs)
}

/// The literals of a source with their lines, without documentation and unit tests.
fn literals(stream: TokenStream, found: &mut Vec<(usize, String)>) {
    let mut trees = stream.into_iter().peekable();
    while let Some(tree) = trees.next() {
        match tree {
            TokenTree::Punct(punct) if punct.as_char() == '#' => {
                let _ = trees.next_if(|t| matches!(t, TokenTree::Punct(p) if p.as_char() == '!'));
                let Some(TokenTree::Group(attribute)) = trees.next() else {
                    continue;
                };
                if attribute.stream().to_string().replace(' ', "") == "cfg(test)" {
                    // The item that is only for tests.
                    for tree in trees.by_ref() {
                        let ends = match &tree {
                            TokenTree::Group(group) => group.delimiter() == Delimiter::Brace,
                            TokenTree::Punct(punct) => punct.as_char() == ';',
                            _ => false,
                        };
                        if ends {
                            break;
                        }
                    }
                }
            }
            TokenTree::Group(group) => literals(group.stream(), found),
            TokenTree::Literal(literal) => {
                found.push((literal.span().start().line, literal.to_string()));
            }
            _ => {}
        }
    }
}

/// Files of one folder that need each other. This list may only shrink: a circle is cut by moving what both need
/// below both.
const CIRCLES: &[&[&str]] = &[&[
    "snapshot/disk.rs",
    "snapshot/partial.rs",
    "snapshot/point.rs",
]];

#[test]
fn no_files_of_a_folder_need_each_other() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    walk(&src, &mut files);
    let sources: Vec<(String, String)> = files
        .iter()
        .map(|file| {
            let name = file.strip_prefix(&src).unwrap().to_str().unwrap();
            (name.to_owned(), fs::read_to_string(file).unwrap())
        })
        .collect();
    let needs = needs(&sources);
    let found = circles(&needs);
    let listed: Vec<Vec<&str>> = CIRCLES.iter().map(|circle| circle.to_vec()).collect();
    let unlisted = found.iter().filter(|circle| !listed.contains(circle));
    let told: Vec<String> = unlisted.map(|circle| ways(circle, &needs)).collect();
    assert!(
        told.is_empty(),
        "files that need each other:\n{}",
        told.join("\n")
    );
    let cut = listed.iter().filter(|circle| !found.contains(circle));
    assert_eq!(
        cut.collect::<Vec<_>>(),
        Vec::<&Vec<&str>>::new(),
        "these are cut: take them out of the list in tests/layers.rs"
    );
}

fn walk(folder: &Path, files: &mut Vec<PathBuf>) {
    let mut entries: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|e| e.unwrap().path())
        .collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            walk(&path, files);
        } else if path.extension().is_some_and(|e| e == "rs") {
            files.push(path);
        }
    }
}

// The rules.

/// Names that lib.rs re-exports, each with the module that it comes from.
fn root_names(lib: &str) -> BTreeMap<String, String> {
    paths(&tokens(lib))
        .into_iter()
        .filter(|p| p.import && p.parts.len() > 1 && layer(&p.parts[0]).is_some())
        .map(|p| (p.parts.last().unwrap().clone(), p.parts[0].clone()))
        .collect()
}

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|row| row.contains(&module))
}

/// What is wrong in the file `name` (relative to src) with the text `source`.
fn check(name: &str, source: &str, root_names: &BTreeMap<String, String>) -> Vec<String> {
    let module = module_of(name);
    let tokens = tokens(source);
    let mut faults = Vec::new();
    let mut fault = |line: usize, what: &str| faults.push(format!("src/{name}:{line}: {what}"));

    match module.first().map(String::as_str) {
        None | Some("bin" | "cli") => {}
        Some(top) if layer(top).is_none() => {
            fault(
                1,
                &format!("the module `{top}` has no layer yet: give it one"),
            );
        }
        Some(_) => {}
    }
    let may_print = matches!(module.first().map(String::as_str), Some("bin" | "cli"));
    let may_change = matches!(module.first().map(String::as_str), Some("storage" | "cli"));
    for path in paths(&tokens) {
        if let Some(target) = path.target(&module)
            && let Some(what) = against_layers(&module, &target, root_names)
        {
            fault(path.line, &format!("`{}`: {what}", path.parts.join("::")));
        }
        for (start, why) in CLI_ONLY_PATHS {
            if !may_print && path.reaches(start) {
                fault(path.line, &format!("`{}`: {why}", path.parts.join("::")));
            }
        }
        let in_tests = path.inline.iter().any(|name| name == "tests");
        if !may_change && !in_tests && CHANGES_FILES.iter().any(|start| path.reaches(start)) {
            let what = "only src/storage changes files";
            fault(path.line, &format!("`{}`: {what}", path.parts.join("::")));
        }
    }
    for pair in tokens.windows(2) {
        if !may_print && pair[1].text == "!" && CLI_ONLY_MACROS.contains(&pair[0].text.as_str()) {
            fault(
                pair[0].line,
                &format!("`{}!`: only src/cli prints", pair[0].text),
            );
        }
    }
    for three in tokens.windows(3) {
        if three[0].text == "." && three[1].text == "display" && three[2].text == "(" {
            let what = "`.display()`: `text::shown` shows paths, whatever is in them";
            fault(three[1].line, what);
        }
    }
    faults
}

/// Why `module` may not use `target`, both as paths from the crate's root.
fn against_layers(
    module: &[String],
    target: &[String],
    root_names: &BTreeMap<String, String>,
) -> Option<String> {
    let from = module.first()?; // lib.rs names every module
    let to = match target.first().map(String::as_str) {
        None | Some("*") => {
            return Some("takes in the whole crate: name the module instead".into());
        }
        Some(name) => root_names.get(name).map_or(name, String::as_str),
    };
    if from == to {
        return None;
    }
    let Some(to_layer) = layer(to) else {
        return Some(format!("there is no module `{to}` in the table of layers"));
    };
    if from == "bin" {
        return (to != "cli").then(|| "a binary uses only `cli`".into());
    }
    (layer(from)? <= to_layer).then(|| format!("`{from}` is not above `{to}`"))
}

/// `image/copy.rs` is `image::copy`, `image/mod.rs` is `image`, `lib.rs` is the empty path.
fn module_of(name: &str) -> Vec<String> {
    let name = name.strip_suffix(".rs").unwrap();
    let mut parts: Vec<String> = name.split('/').map(str::to_string).collect();
    if matches!(parts.last().map(String::as_str), Some("mod" | "lib")) {
        parts.pop();
    }
    parts
}

// Circles.

/// What the modules of the crate name: where a name that a module re-exports comes from.
struct Names {
    /// The files, by module path.
    files: BTreeMap<Vec<String>, String>,
    /// Module path and name, to the path that the name stands for.
    reexports: BTreeMap<(Vec<String>, String), Vec<String>>,
}

impl Names {
    /// The file that defines what `path`, from the crate's root, leads to.
    fn file_of(&self, path: &[String]) -> Option<&str> {
        let mut module: Vec<String> = Vec::new();
        let mut rest: Vec<String> = path.to_vec();
        // Re-exports of re-exports end sometime; circles among them don't compile.
        for _ in 0..32 {
            let Some(name) = rest.first().cloned() else {
                break;
            };
            let child: Vec<String> = module.iter().cloned().chain([name.clone()]).collect();
            if self.files.contains_key(&child) {
                module = child;
                rest.remove(0);
            } else if let Some(from) = self.reexports.get(&(module.clone(), name)) {
                rest.splice(0..1, from.iter().cloned());
                module.clear();
            } else {
                break;
            }
        }
        self.files.get(&module).map(String::as_str)
    }
}

/// Which files of its own folder each file needs. A re-export isn't a need; unit tests don't count.
type Needs<'a> = BTreeMap<&'a str, Vec<&'a str>>;

fn needs(sources: &[(String, String)]) -> Needs<'_> {
    let mut names = Names {
        files: BTreeMap::new(),
        reexports: BTreeMap::new(),
    };
    let mut used = Vec::new();
    for (name, _) in sources {
        names.files.insert(module_of(name), name.clone());
    }
    for (name, source) in sources {
        let module = module_of(name);
        for path in paths(&tokens(source)) {
            let in_tests = path.inline.iter().any(|name| name == "tests");
            let target = path.target(&module).or_else(|| {
                // A child module is in scope by its `mod` item alone.
                let of_child = |parts: &[String]| [module.as_slice(), parts].concat();
                let child = names.files.contains_key(&of_child(&path.parts[..1]));
                child.then(|| of_child(&path.parts))
            });
            let Some(target) = target.filter(|_| !in_tests) else {
                continue;
            };
            if path.import {
                let last = target.last().unwrap().clone();
                names
                    .reexports
                    .insert((module.clone(), last), target.clone());
            }
            if !path.public {
                used.push((name.as_str(), target));
            }
        }
    }
    let folder = |file: &str| file.split_once('/').map(|(folder, _)| folder.to_owned());
    let mut needs = Needs::new();
    for (name, target) in &used {
        let Some(to) = names.file_of(target) else {
            continue;
        };
        let to = sources.iter().find(|(file, _)| file == to);
        if let Some((to, _)) = to
            && to != name
            && folder(name).is_some()
            && folder(name) == folder(to)
        {
            needs.entry(name).or_default().push(to);
        }
    }
    needs
}

/// Who needs whom within a circle, a line each.
fn ways(circle: &[&str], needs: &Needs<'_>) -> String {
    let mut lines: Vec<String> = Vec::new();
    for file in circle {
        let mut to: Vec<&str> = needs[file]
            .iter()
            .copied()
            .filter(|to| circle.contains(to))
            .collect();
        to.sort_unstable();
        to.dedup();
        lines.push(format!("  {file} needs {}", to.join(", ")));
    }
    lines.join("\n")
}

/// Groups of files within one folder that need each other, directly or by way of others, in order.
fn circles<'a>(needs: &Needs<'a>) -> Vec<Vec<&'a str>> {
    let reach = |from: &str| {
        let mut seen: Vec<&str> = Vec::new();
        let mut open: Vec<&str> = needs.get(from).cloned().unwrap_or_default();
        while let Some(file) = open.pop() {
            if !seen.contains(&file) {
                seen.push(file);
                open.extend(needs.get(file).into_iter().flatten());
            }
        }
        seen
    };
    let reached: BTreeMap<&str, Vec<&str>> =
        needs.keys().map(|file| (*file, reach(file))).collect();
    let mut found: Vec<Vec<&str>> = Vec::new();
    for (file, reached_by_it) in &reached {
        let both = |other: &&str| reached.get(*other).is_some_and(|back| back.contains(file));
        let mut circle: Vec<&str> = reached_by_it.iter().copied().filter(|o| both(o)).collect();
        circle.sort_unstable();
        if !circle.is_empty() && !found.contains(&circle) {
            found.push(circle);
        }
    }
    found
}

// Paths in a source.

/// A path as the source has it, `use` trees taken apart.
#[derive(Debug, PartialEq)]
struct UsedPath {
    line: usize,
    parts: Vec<String>,
    /// Modules written inline around it.
    inline: Vec<String>,
    /// Whether it is in a `use`.
    import: bool,
    /// Whether that `use` is a re-export.
    public: bool,
}

impl UsedPath {
    /// The path from the crate's root, if it is one within the crate and surely so.
    fn target(&self, module: &[String]) -> Option<Vec<String>> {
        let bin = module.first().is_some_and(|m| m == "bin");
        let mut here: Vec<String> = if bin { Vec::new() } else { module.to_vec() };
        here.extend(self.inline.iter().cloned());
        let mut rest = self.parts.as_slice();
        match rest.first()?.as_str() {
            "vhdkit" => here.clear(),
            "crate" if !bin => here.clear(),
            "self" if !bin && rest.len() > 1 => {}
            "super" if !bin => {
                while rest.first().is_some_and(|p| p == "super") {
                    here.pop();
                    rest = &rest[1..];
                }
                here.extend(rest.iter().cloned());
                return Some(here);
            }
            _ => return None,
        }
        here.extend(rest[1..].iter().cloned());
        Some(here)
    }

    /// Whether the path begins with `start`, or with a tail of it that a `use` of its head makes possible
    /// (`process::exit` after `use std::process`).
    fn reaches(&self, start: &[&str]) -> bool {
        let begins = |with: &[&str]| {
            self.parts.len() >= with.len() && with.iter().zip(&self.parts).all(|(a, b)| *a == b)
        };
        begins(start) || (start.len() > 2 && begins(&start[1..]))
    }
}

/// Every path of two parts or more, and every import.
fn paths(tokens: &[Token]) -> Vec<UsedPath> {
    let mut found = Vec::new();
    let mut inline: Vec<(String, usize)> = Vec::new();
    let mut depth = 0;
    let mut at = 0;
    while at < tokens.len() {
        let text = tokens[at].text.as_str();
        let around = || inline.iter().map(|(name, _)| name.clone()).collect();
        match text {
            "{" => depth += 1,
            "}" => {
                depth -= 1;
                inline.pop_if(|(_, outside)| *outside == depth);
            }
            "mod" if tokens.get(at + 2).is_some_and(|t| t.text == "{") => {
                inline.push((tokens[at + 1].text.clone(), depth));
                depth += 1;
                at += 2;
            }
            "use" => {
                let before = at.checked_sub(1).map(|at| tokens[at].text.as_str());
                let public = matches!(before, Some("pub" | ")"));
                at += 1;
                let mut leaves = Vec::new();
                use_tree(tokens, &mut at, &mut Vec::new(), &mut leaves);
                found.extend(leaves.into_iter().map(|(line, parts)| UsedPath {
                    line,
                    parts,
                    inline: around(),
                    import: true,
                    public,
                }));
                continue;
            }
            _ if tokens[at].is_word() => {
                let line = tokens[at].line;
                let mut parts = vec![text.to_string()];
                while tokens.get(at + 1).is_some_and(|t| t.text == "::")
                    && tokens.get(at + 2).is_some_and(Token::is_word)
                {
                    at += 2;
                    parts.push(tokens[at].text.clone());
                }
                if parts.len() > 1 {
                    found.push(UsedPath {
                        line,
                        parts,
                        inline: around(),
                        import: false,
                        public: false,
                    });
                }
            }
            _ => {}
        }
        at += 1;
    }
    found
}

/// Takes apart the `use` tree at `at`, and leaves `at` behind it.
fn use_tree(
    tokens: &[Token],
    at: &mut usize,
    head: &mut Vec<String>,
    leaves: &mut Vec<(usize, Vec<String>)>,
) {
    let outside = head.len();
    let mut line = tokens.get(*at).map_or(0, |t| t.line);
    let mut open = false; // a part stands that no leaf has been made of
    while let Some(token) = tokens.get(*at) {
        match token.text.as_str() {
            "::" => {}
            "as" => *at += 1, // and the new name
            "{" => {
                open = false;
                loop {
                    *at += 1; // `{` or `,`
                    use_tree(tokens, at, head, leaves);
                    if tokens.get(*at).is_none_or(|t| t.text != ",") {
                        break;
                    }
                }
            }
            text if text == "*" || token.is_word() => {
                // `self` at the end of a tree is the module itself.
                if text != "self" || head.is_empty() {
                    head.push(text.to_string());
                }
                line = token.line;
                open = true;
            }
            _ => break, // `,`, `}` or `;`
        }
        *at += 1;
    }
    if open {
        leaves.push((line, head.clone()));
    }
    head.truncate(outside);
}

// Tokens of a source.

#[derive(Debug, PartialEq)]
struct Token {
    line: usize,
    text: String,
}

impl Token {
    fn is_word(&self) -> bool {
        self.text
            .starts_with(|c: char| c.is_alphabetic() || c == '_')
    }
}

/// Words, `::`, brackets, and single other characters. Comments, literals and lifetimes are left out.
fn tokens(source: &str) -> Vec<Token> {
    let mut found = Vec::new();
    flatten(source.parse().unwrap(), &mut found);
    found
}

fn flatten(stream: TokenStream, found: &mut Vec<Token>) {
    let token = |span: Span, text: &str| Token {
        line: span.start().line,
        text: text.to_owned(),
    };
    let mut trees = stream.into_iter().peekable();
    while let Some(tree) = trees.next() {
        match tree {
            TokenTree::Group(group) => {
                let (open, close) = match group.delimiter() {
                    Delimiter::Brace => ("{", "}"),
                    Delimiter::Parenthesis => ("(", ")"),
                    Delimiter::Bracket => ("[", "]"),
                    Delimiter::None => ("", ""),
                };
                found.push(token(group.span_open(), open));
                flatten(group.stream(), found);
                found.push(token(group.span_close(), close));
            }
            // `r#name` is the word `name`.
            TokenTree::Ident(word) => {
                let text = word.to_string();
                found.push(token(word.span(), text.trim_start_matches("r#")));
            }
            TokenTree::Punct(punct) if punct.as_char() == '\'' => {
                trees.next();
            }
            TokenTree::Punct(punct) => {
                let is_colon =
                    |c: &TokenTree| matches!(c, TokenTree::Punct(p) if p.as_char() == ':');
                let path = punct.as_char() == ':'
                    && punct.spacing() == Spacing::Joint
                    && trees.next_if(is_colon).is_some();
                let text = punct.as_char().to_string();
                found.push(token(punct.span(), if path { "::" } else { &text }));
            }
            TokenTree::Literal(_) => {}
        }
    }
}

// The checker, checked.

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(name: &str, source: &str) -> Vec<String> {
        let root = root_names("pub mod error;\npub use error::{Error, ErrorKind as Kind, Result};");
        check(name, source, &root)
    }

    #[test]
    fn what_is_allowed_passes() {
        for (name, source) in ALLOWED {
            assert_eq!(
                faults(name, source),
                Vec::<String>::new(),
                "{name}: {source}"
            );
        }
    }

    /// Files and their text.
    const ALLOWED: &[(&str, &str)] = &[
        ("lib.rs", "pub mod cli; pub use cli::x; use crate::vhd::Y;"),
        (
            "page.rs",
            "use crate::error::{Error, Result}; use std::fmt;",
        ),
        ("page.rs", "use crate::Result; fn f() -> crate::Error {}"),
        (
            "image/copy.rs",
            "use super::{Image, raw}; use crate::page; use super::super::page::x;",
        ),
        (
            "image/mod.rs",
            "use self::copy::x; use crate::image::y; mod copy;",
        ),
        (
            "image/mod.rs",
            "mod tests { use super::*; use super::super::storage::x; }",
        ),
        (
            "vhd/footer/encode.rs",
            "use super::super::bat; use crate::{error::{self, *}, image};",
        ),
        (
            "cli/mod.rs",
            "use clap::Parser; fn f() { println!(\"{}\", std::env::args()); std::process::exit(1) }",
        ),
        (
            "cli/info.rs",
            "use crate::{vhd, diff::{self, read}, files};",
        ),
        ("bin/vhd.rs", "fn main() { vhdkit::cli::main(); }"),
        (
            "storage/system.rs",
            "use std::fs; fn f() { fs::rename(a, b); rustix::fs::x(); }",
        ),
        (
            "files/merge.rs",
            "use std::fs; use std::os::unix::fs::MetadataExt as _; fn f() { fs::canonicalize(x); fs::metadata(x); }",
        ),
        (
            "files/merge.rs",
            "mod tests { use std::fs; fn f() { fs::write(x, y); tempfile::tempdir(); } }",
        ),
        ("cli/demo.rs", "fn f() { std::fs::copy(a, b); }"),
        (
            "diff/mod.rs",
            "// use crate::vhd;\n/// [`x`](crate::vhd::x)\n/* crate::vhd::y /* println!() */ */",
        ),
        (
            "diff/mod.rs",
            "const A: &str = \"crate::vhd::x \\\" println!()\"; const B: &str = r#\"\" crate::cli::y \"#;",
        ),
        (
            "diff/mod.rs",
            "fn f<'a>(x: &'a str) -> char { '\"' } // crate::vhd::x\n fn g() -> char { '\\'' }",
        ),
        (
            "diff/mod.rs",
            "pub(crate) fn f() {} pub(in crate::diff) fn g() { io::stdx(); env!(\"A\"); }",
        ),
    ];

    #[test]
    fn what_is_forbidden_is_found_with_its_line() {
        for (name, source, found) in FORBIDDEN {
            let all = faults(name, source).join("\n");
            assert!(
                all.contains(found),
                "{name}: {source}\nnot found: {found}\nin: {all:?}"
            );
        }
    }

    /// Files, their text, and a part of what is said about it.
    const FORBIDDEN: &[(&str, &str, &str)] = &[
        (
            "page.rs",
            "\n\nuse crate::image::Image;",
            ":3: `crate::image::Image`: `page` is not above `image`",
        ),
        (
            "page.rs",
            "use crate::progress::Progress;",
            "`page` is not above `progress`",
        ),
        (
            "error.rs",
            "use crate::page::PageRange;",
            "`error` is not above `page`",
        ),
        (
            "vhd/mod.rs",
            "fn f() {\n    crate::diff::read() }",
            ":2: `crate::diff::read`",
        ),
        (
            "vhd/mod.rs",
            "use crate::{error::Error,\n    image::{self, Image},\n    diff::{a::b, c as d}};",
            ":3: `crate::diff::a::b`",
        ),
        ("vhd/mod.rs", "use crate::{diff as other};", "`crate::diff`"),
        ("vhd/mod.rs", "use crate::{diff::{self}};", "`crate::diff`"),
        ("vhd/mod.rs", "use super::diff;", "`super::diff`"),
        (
            "vhd/bat.rs",
            "use super::super::{diff::x};",
            "`super::super::diff::x`",
        ),
        (
            "vhd/bat.rs",
            "mod tests {\n fn f() {}\n use super::super::super::diff::x; }",
            ":3:",
        ),
        (
            "vhd/bat.rs",
            "mod a { mod b {} } use super::super::diff;",
            "`super::super::diff`",
        ),
        (
            "vhd/bat.rs",
            "fn f(x: Vec<crate::diff::Y>) where T: Into<crate::diff::Z> {}",
            "`crate::diff::Y`",
        ),
        ("vhd/bat.rs", "use crate::*;", "whole crate"),
        ("page.rs", "use super::*;", "whole crate"),
        ("page.rs", "use crate as all;", "whole crate"),
        (
            "page.rs",
            "use crate::nothing::x;",
            "there is no module `nothing`",
        ),
        ("newcomer.rs", "fn f() {}", "`newcomer` has no layer yet"),
        ("newcomer/a.rs", "fn f() {}", "`newcomer` has no layer yet"),
        ("diff/mod.rs", "use vhdkit::vhd::x;", "`vhdkit::vhd::x`"),
        ("diff/mod.rs", "use crate::r#vhd::x;", "`crate::vhd::x`"),
        (
            "diff/mod.rs",
            "const A: &str = r#\"\"#; use crate::vhd;",
            "`crate::vhd`",
        ),
        (
            "diff/mod.rs",
            "fn f() -> char { '\"' } use crate::vhd; const B: char = '\"';",
            "`crate::vhd`",
        ),
        (
            "snapshot/mod.rs",
            "use crate::cli::x;",
            "`snapshot` is not above `cli`",
        ),
        (
            "bin/vhd.rs",
            "fn main() { vhdkit::vhd::x(); }",
            "a binary uses only `cli`",
        ),
        (
            "diff/mod.rs",
            "fn f() {\n println!(\"x\"); }",
            ":2: `println!`",
        ),
        (
            "diff/mod.rs",
            "#[cfg(test)] mod tests { fn f() { dbg!(1); } }",
            "`dbg!`",
        ),
        (
            "diff/mod.rs",
            "fn f() { std::eprintln!(\"x\"); }",
            "`eprintln!`",
        ),
        (
            "diff/mod.rs",
            "use std::process; fn f() { process::exit(1) }",
            "`process::exit`",
        ),
        (
            "diff/mod.rs",
            "use std::{process::{self, exit}, fs};",
            "`std::process::exit`",
        ),
        (
            "diff/mod.rs",
            "fn f() { ::std::process::abort() }",
            "nothing aborts",
        ),
        (
            "diff/mod.rs",
            "use std::env;",
            "only src/cli reads the environment",
        ),
        (
            "diff/mod.rs",
            "use std::io::{self, IsTerminal};",
            "only src/cli knows terminals",
        ),
        (
            "diff/mod.rs",
            "fn f() { io::stdout(); }",
            "only src/cli knows stdout",
        ),
        (
            "diff/mod.rs",
            "use clap::Parser;",
            "only src/cli parses arguments",
        ),
        (
            "files/merge.rs",
            "use std::fs;\nfn f() { fs::remove_file(x); }",
            ":2: `fs::remove_file`: only src/storage changes files",
        ),
        (
            "files/merge.rs",
            "use std::{fs::{self, rename}, io};",
            "`std::fs::rename`: only src/storage changes files",
        ),
        (
            "vhd/write.rs",
            "fn f() { std::fs::File::create(x); }",
            "`std::fs::File::create`",
        ),
        (
            "vhd/write.rs",
            "use std::os::unix::fs::{FileExt as _, MetadataExt as _};",
            "`std::os::unix::fs::FileExt`",
        ),
        (
            "image/mod.rs",
            "fn f() { rustix::fs::ftruncate(x, 1); }",
            "`rustix::fs::ftruncate`",
        ),
        ("image/mod.rs", "use std::fs::*;", "`std::fs::*`"),
        (
            "cli/mod.rs",
            "fn f() {\n path\n.display() }",
            ":3: `.display()`",
        ),
        (
            "diff/mod.rs",
            "fn f() -> indicatif::ProgressBar {}",
            "only src/cli draws progress",
        ),
    ];

    #[test]
    fn circles_are_found_through_re_exports() {
        let file = |name: &str, text: &str| (name.to_owned(), text.to_owned());
        let sources = [
            file("lib.rs", "pub mod a; pub mod b;"),
            file(
                "a/mod.rs",
                "mod one; mod two; mod three; pub use one::One; pub use two::Two;",
            ),
            file("a/one.rs", "use super::Two; pub struct One;"),
            file("a/two.rs", "fn f() { super::three::g() } pub struct Two;"),
            file("a/three.rs", "use crate::a::One; use crate::b::B;"),
            file(
                "a/four.rs",
                "use super::One; mod tests { use super::super::five; }",
            ),
            file("a/five.rs", "use super::four::x;"),
            file("b/mod.rs", "pub struct B; fn f() { crate::a::One }"),
        ];
        assert_eq!(
            circles(&needs(&sources)),
            [["a/one.rs", "a/three.rs", "a/two.rs"]]
        );
    }

    #[test]
    fn modules_are_named_by_their_files() {
        for (name, module) in [
            ("lib.rs", ""),
            ("error.rs", "error"),
            ("image/mod.rs", "image"),
            ("image/copy.rs", "image::copy"),
            ("bin/vhd-diff.rs", "bin::vhd-diff"),
        ] {
            assert_eq!(module_of(name).join("::"), module);
        }
    }
}
