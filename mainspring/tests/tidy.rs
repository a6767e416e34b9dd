//! The rules of this repository that the compiler does not know, checked on the sources as text.
//!
//! Each rule is a function from one file, its path and its text, to what is wrong in it. The test
//! [`the_sources_are_tidy`] runs all of them on all files; below it each rule has a canary, a test that
//! plants what the rule forbids and expects it to be found. The reading is simple on purpose: lines and
//! words, a comment is what follows `//`, and strings are not told from code.

use std::path::{Path, PathBuf};
use std::{env, fs};

/// The folders that are checked, below the workspace's root.
const FOLDERS: [&str; 4] = ["mainspring/src", "mainspring-macros/src", "examples", "bench"];

/// The files that may contain `unsafe`, each with the reason why it must.
const UNSAFE: &[(&str, &str)] = &[
    ("mainspring/src/base/park.rs", "its model writes a loom cell, to show that a token carries data"),
    ("mainspring/src/base/thread_probe.rs", "reads the CPU clock of another thread"),
    ("mainspring/src/base/tsc.rs", "reads the time-stamp counter"),
    ("mainspring/src/net/traits.rs", "hands uninitialised buffers of tokio and hyper to the kernel"),
    ("mainspring/src/net/unix/cred.rs", "asks for the credentials of a peer, whose process id may be 0"),
    ("mainspring/src/poll/epoll.rs", "epoll_pwait2 and epoll_wait write into a buffer of ours"),
    ("mainspring/src/sched/task/cell.rs", "promises that a task's slot never moves"),
    ("mainspring/src/sched/task/loom_tests.rs", "a model makes a slot of its own"),
    ("mainspring/src/sched/task/slot.rs", "polls and drops a future behind a state word"),
];

/// The modules of the crate in layers, lowest first: a module uses those of its own layer and of lower
/// ones. What is not named here, the items at the crate's root among it, is the public face on top.
const LAYERS: [&[&str]; 5] = [&["base"], &["timers"], &["poll"], &["sched"], &["runtime"]];

/// What a rule has found: the line, counted from one, and what to do about it.
type Finding = (usize, String);

type Rule = fn(path: &str, text: &str) -> Vec<Finding>;

const RULES: [Rule; 6] = [
    opens_with_its_purpose,
    unsafe_is_listed,
    imports_point_down,
    nothing_is_put_off,
    primitives_come_from_one_place,
    orderings_are_explained,
];

#[test]
fn the_sources_are_tidy() {
    let root = root();
    let mut found = Vec::new();
    for file in files() {
        let text = fs::read_to_string(root.join(&file)).unwrap();
        for rule in RULES {
            found
                .extend(rule(&file, &text).iter().map(|(line, message)| format!("{file}:{line}: {message}")));
        }
    }
    assert!(found.is_empty(), "\n{}\n", found.join("\n"));
}

#[test]
fn the_list_of_files_with_unsafe_code_is_current() {
    for (file, reason) in UNSAFE {
        let text = fs::read_to_string(root().join(file)).unwrap_or_default();
        let has_some = text.lines().any(|line| is_unsafe(code(line)));
        assert!(has_some, "{file} has no unsafe code (any more): take it off the list UNSAFE");
        assert!(!reason.is_empty(), "{file}: say in the list UNSAFE why it needs unsafe code");
    }
}

// The rules.

fn opens_with_its_purpose(_: &str, text: &str) -> Vec<Finding> {
    if text.starts_with("//!") || text.starts_with("#![doc = include_str!(") {
        return Vec::new();
    }
    vec![(1, "open the file with `//!`: what it is, what it knows nothing of, its invariants".to_owned())]
}

fn unsafe_is_listed(path: &str, text: &str) -> Vec<Finding> {
    unsafe_is_in(UNSAFE, path, text)
}

fn unsafe_is_in(list: &[(&str, &str)], path: &str, text: &str) -> Vec<Finding> {
    let listed = list.iter().any(|(file, _)| *file == path);
    let allowed = text.lines().any(|line| code(line).contains("allow(unsafe_code"));
    let message = match (listed, allowed) {
        (true, true) => return Vec::new(),
        (true, false) => "put `#[allow(unsafe_code)]` on the item, or `#![allow(unsafe_code)]` on the file",
        (false, _) => {
            "do without unsafe code, or put the file on the list UNSAFE in tests/tidy.rs, and say why"
        }
    };
    lines_with(text, is_unsafe).map(|line| (line, message.to_owned())).collect()
}

fn imports_point_down(path: &str, text: &str) -> Vec<Finding> {
    let Some(inside) = path.strip_prefix("mainspring/src/").filter(|inside| *inside != "lib.rs") else {
        return Vec::new();
    };
    let module = inside.split(['/', '.']).next().unwrap_or(inside);
    let own = layer(module);
    let mut found: Vec<Finding> = paths(text, "crate::")
        .into_iter()
        .filter(|(_, name)| layer(name) > own)
        .map(|(line, name)| {
            (
                line,
                format!("`{module}` must not know `{name}`, which is above it: hand it in, or up as a value"),
            )
        })
        .collect();
    // The other way out of a layer, which would escape the check above.
    let is_root = inside == format!("{module}.rs") || inside == format!("{module}/mod.rs");
    found.extend(
        lines_with(program(path, text), |line| {
            line.contains("super::super::") || is_root && line.starts_with("use super::")
        })
        .map(|line| (line, "write a path that leaves the module's parent as `crate::..`".to_owned())),
    );
    found
}

fn layer(module: &str) -> usize {
    LAYERS.iter().position(|layer| layer.contains(&module)).unwrap_or(LAYERS.len())
}

fn nothing_is_put_off(_: &str, text: &str) -> Vec<Finding> {
    ["todo!", "unimplemented!", "#[ignore"]
        .iter()
        .flat_map(|word| {
            lines_with(text, move |line| line.contains(word))
                .map(move |line| (line, format!("finish it or leave it out, but no `{word}`")))
        })
        .collect()
}

fn primitives_come_from_one_place(path: &str, text: &str) -> Vec<Finding> {
    if !path.starts_with("mainspring/src/") || path == "mainspring/src/base/primitive.rs" {
        return Vec::new();
    }
    let program = program(path, text);
    ["std::sync::", "core::sync::"]
        .iter()
        .flat_map(|start| paths(program, start))
        .filter(|(_, name)| ["Mutex", "MutexGuard", "RwLock", "Condvar", "atomic"].contains(&name.as_str()))
        .map(|(line, name)| {
            let place = if name == "atomic" || name == "Condvar" { "primitive" } else { "rank::RankedMutex" };
            (
                line,
                format!("`{name}` comes from `crate::base::{place}`, so that models and lock ranks see it"),
            )
        })
        .collect()
}

fn orderings_are_explained(path: &str, text: &str) -> Vec<Finding> {
    const ORDERINGS: [&str; 5] = ["Relaxed", "Acquire", "Release", "AcqRel", "SeqCst"];

    if !path.starts_with("mainspring/src/") {
        return Vec::new();
    }
    let lines: Vec<&str> = program(path, text).lines().collect();
    let mut found = Vec::new();
    for (index, line) in lines.iter().enumerate() {
        let code = code(line);
        let imported =
            code.contains("use ") && (code.contains("Ordering::{") || code.contains("Ordering::*"));
        if imported {
            found.push((
                index + 1,
                "write `Ordering::..` in full at each access, to be found there".to_owned(),
            ));
        }
        let used = ORDERINGS.iter().any(|ordering| code.contains(&format!("Ordering::{ordering}")));
        let near = &lines[index.saturating_sub(4)..=index];
        let explained = near
            .iter()
            .any(|line| line.split_once("//").is_some_and(|(_, comment)| comment.contains("ordering:")));
        if used && !explained {
            found.push((
                index + 1,
                "name the access's partner, in a comment `// ordering: ..` at most 4 lines above".to_owned(),
            ));
        }
    }
    found
}

// Reading.

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the package is in the workspace").to_owned()
}

/// All source files below [`FOLDERS`], as paths from the root.
fn files() -> Vec<String> {
    fn collect(folder: &Path, root: &Path, files: &mut Vec<String>) {
        let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        for entry in entries {
            let path = entry.unwrap().path();
            if path.is_dir() {
                collect(&path, root, files);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let path = path.strip_prefix(root).unwrap();
                files.push(path.to_str().unwrap().replace('\\', "/"));
            }
        }
    }
    let root = root();
    let mut files = Vec::new();
    for folder in FOLDERS {
        let before = files.len();
        collect(&root.join(folder), &root, &mut files);
        assert!(files.len() > before, "{folder} has no sources: correct FOLDERS");
    }
    files.sort();
    files
}

/// A line without its comment.
fn code(line: &str) -> &str {
    line.split_once("//").map_or(line, |(code, _)| code)
}

/// The numbers of the lines whose code is as asked.
fn lines_with(text: &str, is: impl Fn(&str) -> bool) -> impl Iterator<Item = usize> {
    text.lines().enumerate().filter(move |(_, line)| is(code(line))).map(|(index, _)| index + 1)
}

fn is_unsafe(code: &str) -> bool {
    ["unsafe {", "unsafe impl", "unsafe fn", "unsafe extern", "unsafe trait"]
        .iter()
        .any(|word| code.contains(word))
}

/// The text up to the first module of tests; nothing of a file that is all tests.
fn program<'a>(path: &str, text: &'a str) -> &'a str {
    if path.ends_with("tests.rs") || path.contains("/tests/") {
        return "";
    }
    let mut start = 0;
    let mut test = None;
    for line in text.split_inclusive('\n') {
        if line.starts_with("#[cfg(") && line.contains("test") {
            test = test.or(Some(start));
        } else if let Some(start) = test.filter(|_| !line.starts_with("#[")) {
            // A `#[cfg(test)]` on anything but a module, on an import say, does not end the program.
            if line.contains("mod ") && line.trim_end().ends_with('{') {
                return &text[..start];
            }
            test = None;
        }
        start += line.len();
    }
    text
}

/// The word after each `start` in the code, and after `start {` each of the words in the braces.
fn paths(text: &str, start: &str) -> Vec<Finding> {
    // Comments go, line ends stay, so that lines can be counted.
    let text: String = text.lines().map(|line| format!("{}\n", code(line))).collect();
    let mut found = Vec::new();
    for (at, _) in text.match_indices(start) {
        // Part of a longer name.
        if text[..at].ends_with(|before: char| before.is_alphanumeric() || before == '_' || before == ':') {
            continue;
        }
        let line = text[..at].matches('\n').count() + 1;
        let rest = &text[at + start.len()..];
        match rest.strip_prefix('{') {
            None => found.push((line, word(rest))),
            Some(group) => found.extend(group_words(group).map(|word| (line, word))),
        }
    }
    found
}

/// The first word of each member of an import group, given what follows its opening brace.
fn group_words(group: &str) -> impl Iterator<Item = String> {
    let mut depth = 1;
    let members = group
        .split_inclusive(move |character| {
            depth += i32::from(character == '{') - i32::from(character == '}');
            depth == 0 || depth == 1 && character == ','
        })
        .take_while({
            let mut open = true;
            move |member| std::mem::replace(&mut open, member.ends_with(','))
        });
    members.map(|member| word(member.trim_start())).filter(|word| !word.is_empty())
}

fn word(text: &str) -> String {
    text.chars().take_while(|character| character.is_alphanumeric() || *character == '_').collect()
}

// The canaries.

/// Checks that `rule` finds something in exactly these lines.
#[track_caller]
fn check(rule: Rule, path: &str, text: &str, expected: &[usize]) {
    let found = rule(path, text);
    let lines: Vec<usize> = found.iter().map(|(line, _)| *line).collect();
    assert_eq!(lines, expected, "{found:?}");
}

#[test]
fn a_file_without_a_head_is_found() {
    check(opens_with_its_purpose, "bench/a.rs", "// Words.\nfn a() {}\n", &[1]);
    check(opens_with_its_purpose, "bench/a.rs", "", &[1]);
    check(opens_with_its_purpose, "bench/a.rs", "//! Words.\n", &[]);
}

#[test]
fn unsafe_code_that_is_not_listed_or_not_allowed_is_found() {
    let file = "mainspring/src/sched/a.rs";
    let text = "//! No unsafe { in comments.\nfn a() {\n    unsafe { b() }\n}\nunsafe impl Send for A {}\n";
    check(unsafe_is_listed, file, text, &[3, 5]);
    let lines = |text: &str| -> Vec<usize> {
        unsafe_is_in(&[(file, "reason")], file, text).into_iter().map(|(line, _)| line).collect()
    };
    assert_eq!(lines(text), [3, 5]);
    assert_eq!(lines(&format!("#![allow(unsafe_code)]\n{text}")), []);
    assert_eq!(lines(&format!("// allow(unsafe_code)\n{text}")), [4, 6]);
}

#[test]
fn an_import_that_points_up_is_found() {
    let text =
        "use crate::base::rank;\nuse crate::sched::Worker;\nfn a() { crate::spawn(b) }\n// crate::net\n";
    check(imports_point_down, "mainspring/src/timers/heap.rs", text, &[2, 3]);
    check(imports_point_down, "mainspring/src/timers.rs", text, &[2, 3]);
    check(imports_point_down, "mainspring/src/sched/mod.rs", text, &[3]);
    check(imports_point_down, "mainspring/src/net/tcp.rs", text, &[]);
    check(imports_point_down, "mainspring/src/lib.rs", text, &[]);
}

#[test]
fn an_import_that_points_up_from_a_group_is_found() {
    let text = "use crate::{base::{clock, net}, timers};\n\nuse crate::{\n    base::rng,\n    runtime::Handle,\n};\n";
    check(imports_point_down, "mainspring/src/poll/side.rs", text, &[3]);
    check(imports_point_down, "mainspring/src/base/slab.rs", text, &[1, 3]);
    check(imports_point_down, "mainspring/src/runtime/mod.rs", text, &[]);
}

#[test]
fn a_way_around_the_layers_is_found() {
    let text =
        "use super::super::sched::Worker;\n#[cfg(test)]\nmod tests {\n    use super::super::Heap;\n}\n";
    check(imports_point_down, "mainspring/src/timers/heap.rs", text, &[1]);
    check(imports_point_down, "mainspring/src/base/mod.rs", "use super::sched::Worker;\n", &[1]);
    check(imports_point_down, "mainspring/src/base/park.rs", "use super::primitive;\n", &[]);
}

#[test]
fn what_is_put_off_is_found() {
    let text = "fn a() {\n    todo!()\n}\nfn b() { unimplemented!(\"b\") }\n#[test]\n#[ignore = \"slow\"]\nfn c() {}\n";
    check(nothing_is_put_off, "examples/a.rs", text, &[2, 4, 6]);
}

#[test]
fn a_primitive_from_elsewhere_is_found() {
    let text = "use std::sync::Arc;\nuse std::sync::{Arc, Mutex};\nuse std::sync::atomic::AtomicU8;\n\
                static A: core::sync::atomic::AtomicU8 = b();\n";
    check(primitives_come_from_one_place, "mainspring/src/sched/a.rs", text, &[2, 3, 4]);
    check(primitives_come_from_one_place, "mainspring/src/base/primitive.rs", text, &[]);
    check(primitives_come_from_one_place, "mainspring/src/sched/loom_tests.rs", text, &[]);
    check(primitives_come_from_one_place, "examples/http.rs", text, &[]);
    let tests = format!("#[cfg(all(test, not(mainspring_loom)))]\n#[allow(a)]\nmod tests {{\n{text}}}\n");
    check(primitives_come_from_one_place, "mainspring/src/sched/a.rs", &tests, &[]);
    let import = format!("#[cfg(test)]\nuse a::b;\n{text}");
    check(primitives_come_from_one_place, "mainspring/src/sched/a.rs", &import, &[4, 5, 6]);
}

#[test]
fn an_access_without_its_partner_is_found() {
    let text = "// ordering: Acquire, pairs with `b`.\n1\n2\n3\na.load(Ordering::Acquire);\na.load(Ordering::Acquire);\n\
                a.load(Ordering::SeqCst); // ordering: pairs with `c`.\na.cmp(&b) == Ordering::Less\n";
    check(orderings_are_explained, "mainspring/src/sched/a.rs", text, &[6]);
    check(orderings_are_explained, "bench/src/main.rs", text, &[]);
    check(
        orderings_are_explained,
        "mainspring/src/a.rs",
        "use atomic::Ordering::{Acquire, Release};\n",
        &[1],
    );
}
