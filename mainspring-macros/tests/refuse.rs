//! What the attributes refuse: the message, and the place in the source at which it points.
//!
//! Each test gives the compiler a few lines in which `^` marks the place, just before it.

use std::env::consts::{DLL_PREFIX, DLL_SUFFIX};
use std::path::PathBuf;
use std::process::Command;
use std::{env, fs};

/// Expects that the attribute refuses `source` at the mark with `message`.
#[track_caller]
fn refuses(source: &str, message: &str) {
    check(source, &format!("error: {message}"));
}

/// Compiles `source` and expects one error and no second, at the mark, that begins with `expected`.
#[track_caller]
fn check(source: &str, expected: &str) {
    let before = source.split_once('^').expect("a mark").0;
    let line = before.matches('\n').count() + 1;
    let column = before.len() - before.rfind('\n').map_or(0, |end| end + 1) + 1;

    let test = std::thread::current().name().expect("tests have names").to_owned();
    let directory = env::temp_dir().join(format!("mainspring-{}-{test}", std::process::id()));
    fs::create_dir_all(&directory).unwrap();
    let file = directory.join("case.rs");
    fs::write(&file, source.replacen('^', "", 1)).unwrap();
    let output = Command::new(env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()))
        .args(["--edition=2024", "--crate-type=bin", "--emit=metadata"])
        .args(["--error-format=short", "--color=never", "--extern"])
        .arg(format!("mainspring_macros={}", library().display()))
        .arg("--out-dir")
        .arg(&directory)
        .arg(&file)
        .output()
        .expect("the compiler runs");
    fs::remove_dir_all(&directory).unwrap();

    let said = String::from_utf8(output.stderr).unwrap();
    let errors: Vec<&str> = said.lines().filter_map(|line| Some(line.split_once("case.rs:")?.1)).collect();
    let expected = format!("{line}:{column}: {expected}");
    assert!(errors.len() == 1 && errors[0].starts_with(&expected), "expected {expected}, got:\n{said}");
}

/// The newest build of the attributes: cargo puts it next to this test.
fn library() -> PathBuf {
    let tests = env::current_exe().unwrap();
    let start = format!("{DLL_PREFIX}mainspring_macros-");
    fs::read_dir(tests.parent().unwrap())
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| {
            let name = entry.file_name().into_string().unwrap();
            name.starts_with(&start) && name.ends_with(DLL_SUFFIX)
        })
        .max_by_key(|entry| entry.metadata().unwrap().modified().unwrap())
        .expect("cargo has built the library")
        .path()
}

#[test]
fn a_function_that_is_not_async() {
    refuses("#[mainspring_macros::main]\npub ^fn main() {}", "this function must be an `async fn`");
}

#[test]
fn a_test_that_is_not_async() {
    refuses(
        "fn main() {}\n#[mainspring_macros::test]\n^fn works() {}",
        "this function must be an `async fn`",
    );
}

#[test]
fn arguments() {
    refuses(
        "#[mainspring_macros::main]\nasync fn main(^words: &[String]) {}",
        "this function must not take arguments: nobody passes any",
    );
}

#[test]
fn generics() {
    refuses("#[mainspring_macros::main]\nasync fn main^<T>() {}", "this function must not be generic");
}

#[test]
fn unsafe_functions() {
    refuses("#[mainspring_macros::main]\nasync ^unsafe fn main() {}", "this function must not be `unsafe`");
}

#[test]
fn items_that_are_no_function() {
    refuses(
        "fn main() {}\n#[mainspring_macros::test]\n/// Words.\n^struct Name;",
        "this attribute goes on an `async fn`",
    );
}

#[test]
fn functions_without_a_body() {
    refuses("#[mainspring_macros::main]\nasync fn main()^;", "expected a function with a body");
}

#[test]
fn a_second_test_attribute() {
    refuses(
        "fn main() {}\n#[mainspring_macros::test]\n#[core::prelude::v1::^test]\nasync fn works() {}",
        "this function is already a test: remove one of the two",
    );
}

#[test]
fn options_that_are_no_words() {
    refuses(
        "#[mainspring_macros::main(^2)]\nasync fn main() {}",
        "expected an option: `key` or `key = value`",
    );
}

#[test]
fn options_with_another_sign_than_equals() {
    refuses(
        "#[mainspring_macros::main(processors^: 2)]\nasync fn main() {}",
        "expected `=` or `,` after `processors`; a value with a comma goes into parentheses",
    );
}

#[test]
fn options_without_their_value() {
    refuses("#[mainspring_macros::main(processors ^= )]\nasync fn main() {}", "`processors` has no value");
}

#[test]
fn options_given_twice() {
    refuses(
        "#[mainspring_macros::main(seed = 1, ^seed = 2)]\nasync fn main() {}",
        "the option `seed` is given twice",
    );
}

#[test]
fn a_crate_that_is_no_path() {
    refuses(
        "#[mainspring_macros::main(crate = ^\"other\")]\nasync fn main() {}",
        "expected a path, as in `crate = some_crate::mainspring`",
    );
    refuses("#[mainspring_macros::main(^crate)]\nasync fn main() {}", "expected a path: `crate = path`");
}

/// As much of the runtime as generated code needs, on one line.
const RUNTIME: &str = "mod m { pub mod runtime { pub struct Builder; impl Builder { \
    pub fn new() -> Self { Builder } \
    pub fn processors(self, _: usize) -> Self { self } \
    pub fn build(self) -> Result<Self, ()> { Ok(self) } \
    pub fn block_on<F: Future>(&self, _: F) -> F::Output { loop {} } } } }";

#[test]
fn an_unknown_option_at_its_name() {
    check(
        &format!("{RUNTIME}\n#[mainspring_macros::main(crate = m, ^procesors = 2)]\nasync fn main() {{}}"),
        "error[E0599]",
    );
}

#[test]
fn an_option_of_the_wrong_type_at_its_value() {
    check(
        &format!(
            "{RUNTIME}\n#[mainspring_macros::main(crate = m, processors = ^\"2\")]\nasync fn main() {{}}"
        ),
        "error[E0308]",
    );
}

#[test]
fn a_wrong_return_value_where_it_stands() {
    check(
        &format!(
            "{RUNTIME}\nfn main() {{}}\n#[mainspring_macros::main(crate = m, processors = 2)]\n\
             async fn start() -> Result<u32, ()> {{ Err(())?; Ok(^\"no\") }}"
        ),
        "error[E0308]",
    );
}

#[test]
fn a_question_mark_that_cannot_convert_where_it_stands() {
    check(
        &format!(
            "{RUNTIME}\nfn main() {{}}\n#[mainspring_macros::main(crate = m, processors = 2)]\n\
             async fn start() -> Result<u32, String> {{ Ok(\"2\".parse::<u32>()^?) }}"
        ),
        "error[E0277]",
    );
}
