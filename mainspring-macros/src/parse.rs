//! What the attributes read: the head of a function, and a list of options.
//!
//! It looks no further than it must: types, expressions and the function's body are passed on unread,
//! each token with its place in the source. What it refuses, it refuses at the token that is wrong.
//! It knows nothing of what the options mean.

use std::iter::Peekable;

use proc_macro::token_stream::IntoIter;
use proc_macro::{Delimiter, Group, Ident, Literal, Punct, Spacing, Span, TokenStream, TokenTree};

pub(crate) type Result<T> = std::result::Result<T, Error>;

/// A message for the user, and the place that it is about.
pub(crate) struct Error {
    span: Span,
    message: String,
}

impl Error {
    pub(crate) fn at(span: Span, message: impl Into<String>) -> Error {
        Error { span, message: message.into() }
    }

    /// `::core::compile_error! { "message" }`, every token of it at the place of the error.
    pub(crate) fn into_tokens(self) -> TokenStream {
        let punct = |character, spacing| TokenTree::Punct(Punct::new(character, spacing));
        let ident = |name| TokenTree::Ident(Ident::new(name, self.span));
        let message = TokenTree::Literal(Literal::string(&self.message));
        [
            punct(':', Spacing::Joint),
            punct(':', Spacing::Alone),
            ident("core"),
            punct(':', Spacing::Joint),
            punct(':', Spacing::Alone),
            ident("compile_error"),
            punct('!', Spacing::Alone),
            TokenTree::Group(Group::new(Delimiter::Brace, message.into())),
        ]
        .into_iter()
        .map(|mut token| {
            token.set_span(self.span);
            token
        })
        .collect()
    }
}

/// An `async fn` without parameters, in pieces.
pub(crate) struct Function {
    /// Attributes and visibility: what stands before `async`.
    before: Vec<TokenTree>,
    /// The end of the path of an attribute called `test`, where there is one.
    pub(crate) test_attribute: Option<Ident>,
    asyncness: TokenTree,
    keyword: TokenTree,
    pub(crate) name: Ident,
    /// The empty parentheses.
    pub(crate) parameters: TokenTree,
    /// Return type and where clause.
    after: Vec<TokenTree>,
    pub(crate) body: Group,
}

impl Function {
    pub(crate) fn parse(item: TokenStream) -> Result<Function> {
        let mut tokens = unwrapped(item).into_iter().peekable();
        let head = Head::parse(&mut tokens)?;
        let Some(TokenTree::Ident(name)) = tokens.next() else {
            return Err(Error::at(head.keyword.span(), "expected a function with a name"));
        };
        let parameters = match tokens.next() {
            Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Parenthesis => group,
            Some(token) => return Err(Error::at(token.span(), "this function must not be generic")),
            None => return Err(Error::at(name.span(), "expected a function with parameters and a body")),
        };
        if let Some(first) = parameters.stream().into_iter().next() {
            return Err(Error::at(first.span(), "this function must not take arguments: nobody passes any"));
        }
        let mut after: Vec<TokenTree> = tokens.collect();
        let body = match after.pop() {
            Some(TokenTree::Group(group)) if is_body(&group) => group,
            Some(token) => return Err(Error::at(token.span(), "expected a function with a body")),
            None => return Err(Error::at(parameters.span(), "expected a function with a body")),
        };
        let Some(asyncness) = head.asyncness else {
            return Err(Error::at(head.keyword.span(), "this function must be an `async fn`"));
        };
        Ok(Function {
            before: head.before,
            test_attribute: head.test_attribute,
            asyncness,
            keyword: head.keyword,
            name,
            parameters: TokenTree::Group(parameters),
            after,
            body,
        })
    }

    /// The head of the function that others see: as written, but for `async`.
    pub(crate) fn outer(&self) -> TokenStream {
        self.before.iter().cloned().chain(self.signature()).collect()
    }

    /// The function as written, without its attributes and visibility.
    pub(crate) fn inner(&self) -> TokenStream {
        let body = TokenTree::Group(self.body.clone());
        [self.asyncness.clone()].into_iter().chain(self.signature()).chain([body]).collect()
    }

    fn signature(&self) -> impl Iterator<Item = TokenTree> + '_ {
        let name = TokenTree::Ident(self.name.clone());
        [self.keyword.clone(), name, self.parameters.clone()].into_iter().chain(self.after.iter().cloned())
    }
}

/// What stands before a function's name.
struct Head {
    before: Vec<TokenTree>,
    test_attribute: Option<Ident>,
    asyncness: Option<TokenTree>,
    keyword: TokenTree,
}

impl Head {
    fn parse(tokens: &mut Peekable<IntoIter>) -> Result<Head> {
        let mut before: Vec<TokenTree> = Vec::new();
        let mut test_attribute = None;
        let mut asyncness = None;
        let mut first_word = None;
        for token in tokens {
            match &token {
                // The brackets of an attribute hide what is in them, so these are keywords.
                TokenTree::Ident(ident) => {
                    first_word.get_or_insert(ident.span());
                    match ident.to_string().as_str() {
                        "fn" => return Ok(Head { before, test_attribute, asyncness, keyword: token }),
                        "async" => {
                            asyncness = Some(token);
                            continue;
                        }
                        word @ ("unsafe" | "const" | "extern") => {
                            let message = format!("this function must not be `{word}`");
                            return Err(Error::at(ident.span(), message));
                        }
                        _ => {}
                    }
                }
                TokenTree::Group(group) if group.delimiter() == Delimiter::Bracket => {
                    test_attribute = test_attribute.or_else(|| attribute_called_test(group));
                }
                _ => {}
            }
            before.push(token);
        }
        Err(Error::at(first_word.unwrap_or_else(Span::call_site), "this attribute goes on an `async fn`"))
    }
}

/// The last word of the path in an attribute's brackets, if it is `test`.
fn attribute_called_test(brackets: &Group) -> Option<Ident> {
    let mut last = None;
    for token in brackets.stream() {
        match token {
            TokenTree::Ident(ident) => last = Some(ident),
            TokenTree::Punct(punct) if punct.as_char() == ':' => {}
            _ => break,
        }
    }
    last.filter(|ident| ident.to_string() == "test")
}

/// A block, or one that came through a `$body:block` of another macro.
fn is_body(group: &Group) -> bool {
    matches!(group.delimiter(), Delimiter::Brace | Delimiter::None)
}

/// An item that came through an `$item:item` of another macro is wrapped in a group.
fn unwrapped(item: TokenStream) -> TokenStream {
    let mut tokens = item.clone().into_iter();
    match (tokens.next(), tokens.next()) {
        (Some(TokenTree::Group(group)), None) if group.delimiter() == Delimiter::None => {
            unwrapped(group.stream())
        }
        _ => item,
    }
}

/// The options of an attribute.
pub(crate) struct Options {
    /// The value of `crate = path`.
    pub(crate) path: Option<TokenStream>,
    /// The other options, as `.key(value)` one after the other.
    pub(crate) calls: TokenStream,
}

impl Options {
    pub(crate) fn parse(options: TokenStream) -> Result<Options> {
        let mut tokens = options.into_iter().peekable();
        let mut parsed = Options { path: None, calls: TokenStream::new() };
        let mut seen: Vec<String> = Vec::new();
        while let Some(token) = tokens.next() {
            let TokenTree::Ident(key) = token else {
                return Err(Error::at(token.span(), "expected an option: `key` or `key = value`"));
            };
            let name = key.to_string();
            if seen.contains(&name) {
                return Err(Error::at(key.span(), format!("the option `{name}` is given twice")));
            }
            let value = value(&key, &mut tokens)?;
            if name == "crate" {
                parsed.path = Some(crate_path(&key, value)?);
            } else {
                parsed.calls.extend(call(key, value));
            }
            seen.push(name);
        }
        Ok(parsed)
    }
}

/// Reads what follows a key, up to the next comma and with it.
fn value(key: &Ident, tokens: &mut Peekable<IntoIter>) -> Result<Option<TokenStream>> {
    let equals = match tokens.next() {
        None => return Ok(None),
        Some(token) if is_punct(&token, ',') => return Ok(None),
        Some(token) if is_punct(&token, '=') => token,
        Some(token) => {
            let message =
                format!("expected `=` or `,` after `{key}`; a value with a comma goes into parentheses");
            return Err(Error::at(token.span(), message));
        }
    };
    let mut value = TokenStream::new();
    for token in tokens.by_ref() {
        if is_punct(&token, ',') {
            break;
        }
        value.extend([token]);
    }
    if value.is_empty() {
        return Err(Error::at(equals.span(), format!("`{key}` has no value")));
    }
    Ok(Some(value))
}

fn crate_path(key: &Ident, value: Option<TokenStream>) -> Result<TokenStream> {
    let Some(value) = value else {
        return Err(Error::at(key.span(), "expected a path: `crate = path`"));
    };
    match value.clone().into_iter().next() {
        Some(TokenTree::Literal(literal)) => {
            Err(Error::at(literal.span(), "expected a path, as in `crate = some_crate::mainspring`"))
        }
        _ => Ok(value),
    }
}

/// `.key(value)`, or `.key(true)` without a value; messages about the call point at the key.
fn call(key: Ident, value: Option<TokenStream>) -> TokenStream {
    let span = key.span();
    let value = value.unwrap_or_else(|| TokenTree::Ident(Ident::new("true", span)).into());
    let mut dot = Punct::new('.', Spacing::Alone);
    dot.set_span(span);
    let mut argument = Group::new(Delimiter::Parenthesis, value);
    argument.set_span(span);
    [TokenTree::Punct(dot), TokenTree::Ident(key), TokenTree::Group(argument)].into_iter().collect()
}

fn is_punct(token: &TokenTree, character: char) -> bool {
    matches!(token, TokenTree::Punct(punct) if punct.as_char() == character)
}
