//! The attributes `#[mainspring::main]` and `#[mainspring::test]`, which the crate `mainspring`
//! re-exports.
//!
//! Both turn an `async fn` into a plain function that runs it:
//!
//! ```text
//! #[mainspring::main(processors = 2)]          fn main() -> io::Result<()> {
//! async fn main() -> io::Result<()> {              async fn main() -> io::Result<()> {
//!     serve().await?;                                  serve().await?;
//!     Ok(())                              ──▶          Ok(())
//! }                                                }
//!                                                  ::mainspring::runtime::Builder::new().processors(2)
//!                                                      .build().expect("failed to build the runtime")
//!                                                      .block_on(main())
//!                                              }
//! ```
//!
//! The function goes into the new one as it was written, so the compiler's messages about it point at
//! the same places and say the same things, and `?` knows what it converts to. Options become calls
//! on the builder: this crate knows none of them, and a new one needs no change here. It knows nothing
//! of Rust's grammar beyond the head of a function, so it needs no parser and depends on nothing.

mod parse;

use proc_macro::{Delimiter, Group, TokenStream, TokenTree};

use parse::{Function, Options, Result};

/// Runs an `async fn` as the program's main function.
///
/// Without options it runs on the ambient runtime, as `mainspring::block_on` does:
///
/// ```text
/// #[mainspring::main]
/// async fn main() -> std::io::Result<()> {
///     let listener = mainspring::net::TcpListener::bind("127.0.0.1:0").await?;
///     println!("listening on {}", listener.local_addr()?);
///     Ok(())
/// }
/// ```
///
/// # Options
///
/// With options it runs on a runtime of its own, which ends with the function. An option is a method of
/// `runtime::Builder`: `key = value` becomes `.key(value)`, and `key` alone becomes `.key(true)`.
///
/// ```text
/// #[mainspring::main(processors = 2, max_threads = 64, thread_name = "web")]
/// async fn main() {
///     // ...
/// }
/// ```
///
/// A value is any expression; one with a comma outside of brackets, as in `map::<A, B>()`, goes into
/// parentheses. `crate = path` says where the crate `mainspring` is to be found when it is re-exported
/// by another one; the default is `::mainspring`.
///
/// # Errors
///
/// What the function returns is what the program returns. It does not compile on a function that is not
/// `async`, that takes arguments, or that is generic.
///
/// # Panics
///
/// With options, if the runtime cannot be built.
#[proc_macro_attribute]
pub fn main(options: TokenStream, item: TokenStream) -> TokenStream {
    expand(Attribute::Main, options, item).unwrap_or_else(|error| {
        let mut tokens = error.into_tokens();
        // Without a main function there would be a second message, about its absence.
        tokens.extend(code("fn main() {}"));
        tokens
    })
}

/// Makes a test of an `async fn`.
///
/// Each test runs on a runtime of its own, so that no test sees the tasks or the counters of another,
/// and what a test leaves running is cancelled when it ends. The runtime has two processors, so that
/// tasks do meet on different threads, unless the option `processors` says otherwise.
///
/// ```text
/// #[mainspring::test]
/// async fn a_task_gives_its_value() {
///     assert_eq!(mainspring::spawn(async { 7 }).await.unwrap(), 7);
/// }
///
/// #[mainspring::test(processors = 1)]
/// #[should_panic(expected = "out of range")]
/// async fn a_wrong_index_panics() {
///     // ...
/// }
/// ```
///
/// Options are those of [`macro@main`]. `#[should_panic]`, `#[ignore]` and return types work as they do on a
/// plain `#[test]`.
///
/// # Errors
///
/// It does not compile on a function that is not `async`, that takes arguments, or that is generic, nor
/// beside a second test attribute, which would run the test twice.
///
/// # Panics
///
/// If the runtime cannot be built.
#[proc_macro_attribute]
pub fn test(options: TokenStream, item: TokenStream) -> TokenStream {
    expand(Attribute::Test, options, item).unwrap_or_else(parse::Error::into_tokens)
}

#[derive(Clone, Copy)]
enum Attribute {
    Main,
    Test,
}

fn expand(attribute: Attribute, options: TokenStream, item: TokenStream) -> Result<TokenStream> {
    let function = Function::parse(item)?;
    if let (Attribute::Test, Some(second)) = (attribute, &function.test_attribute) {
        return Err(parse::Error::at(
            second.span(),
            "this function is already a test: remove one of the two",
        ));
    }
    let run = run(attribute, Options::parse(options)?, &function);

    let mut body = function.inner();
    body.extend(run);
    let mut body = Group::new(Delimiter::Brace, body);
    body.set_span(function.body.span());

    let mut tokens = TokenStream::new();
    if let Attribute::Test = attribute {
        tokens.extend(code("#[::core::prelude::v1::test]"));
    }
    tokens.extend(function.outer());
    tokens.extend([TokenTree::Group(body)]);
    Ok(tokens)
}

/// The expression that runs the future of the inner function.
fn run(attribute: Attribute, options: Options, function: &Function) -> TokenStream {
    let mut tokens = options.path.unwrap_or_else(|| code("::mainspring"));
    let ambient = options.calls.is_empty() && matches!(attribute, Attribute::Main);
    if ambient {
        tokens.extend(code("::block_on"));
    } else {
        tokens.extend(code("::runtime::Builder::new()"));
        if let Attribute::Test = attribute {
            // An option of the same name comes later and wins.
            tokens.extend(code(".processors(2)"));
        }
        tokens.extend(options.calls);
        tokens.extend(code(".build().expect(\"failed to build the runtime\").block_on"));
    }
    let call = TokenStream::from_iter([TokenTree::Ident(function.name.clone()), function.parameters.clone()]);
    tokens.extend([TokenTree::Group(Group::new(Delimiter::Parenthesis, call))]);
    tokens
}

/// Tokens of our own; the compiler's messages about them point at the attribute.
fn code(source: &str) -> TokenStream {
    source.parse().expect("our own code is made of tokens")
}
