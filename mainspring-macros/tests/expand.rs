//! What the attributes make of a function, against a stand-in for the runtime that notes how it was
//! built. That they work with the real one is for the tests of `mainspring` to say.

use std::fmt::Display;
use std::io;

use mainspring_macros::{main, test};

/// As much of `mainspring` as the attributes name.
mod stand_in {
    use std::cell::RefCell;
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    thread_local! {
        /// What was called on this thread, in order.
        static CALLS: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
    }

    pub(crate) fn note(call: String) {
        CALLS.with_borrow_mut(|calls| calls.push(call));
    }

    /// The calls since the last time, joined by a blank.
    pub(crate) fn calls() -> String {
        CALLS.with_borrow_mut(std::mem::take).join(" ")
    }

    pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
        note("ambient".to_owned());
        poll(future)
    }

    fn poll<F: Future>(future: F) -> F::Output {
        match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(output) => output,
            Poll::Pending => panic!("the futures of these tests are ready at once"),
        }
    }

    pub(crate) mod runtime {
        use std::future::Future;
        use std::io;

        use super::note;

        pub(crate) struct Builder(String);

        impl Builder {
            pub(crate) fn new() -> Builder {
                Builder("built".to_owned())
            }

            pub(crate) fn processors(self, count: usize) -> Builder {
                Builder(format!("{} processors={count}", self.0))
            }

            pub(crate) fn thread_name(self, name: &str) -> Builder {
                Builder(format!("{} thread_name={name}", self.0))
            }

            pub(crate) fn virtual_time(self, on: bool) -> Builder {
                Builder(format!("{} virtual_time={on}", self.0))
            }

            pub(crate) fn build(self) -> io::Result<Runtime> {
                note(self.0);
                Ok(Runtime)
            }
        }

        pub(crate) struct Runtime;

        impl Runtime {
            pub(crate) fn block_on<F: Future>(&self, future: F) -> F::Output {
                super::poll(future)
            }
        }
    }
}

#[main(crate = crate::stand_in)]
async fn without_options() -> u32 {
    7
}

#[test(crate = crate::stand_in)]
async fn a_test_gets_a_runtime_with_two_processors() {
    assert_eq!(stand_in::calls(), "built processors=2");
}

#[test(crate = crate::stand_in, processors = 4)]
async fn an_option_of_a_test_comes_after_the_default() {
    assert_eq!(stand_in::calls(), "built processors=2 processors=4");
}

#[core::prelude::v1::test]
fn main_without_options_runs_on_the_ambient_runtime() {
    assert_eq!(without_options(), 7);
    assert_eq!(stand_in::calls(), "ambient");
}

#[main(processors = 1 + usize::from(true), thread_name = "web", virtual_time, crate = crate::stand_in,)]
async fn with_options() {}

#[core::prelude::v1::test]
fn options_become_calls_on_the_builder_in_their_order() {
    with_options();
    assert_eq!(stand_in::calls(), "built processors=2 thread_name=web virtual_time=true");
}

#[main(crate = crate::stand_in)]
async fn converts_errors() -> Result<u32, Box<dyn std::error::Error>> {
    let number: u32 = "not a number".parse()?;
    Ok(number)
}

#[core::prelude::v1::test]
fn a_question_mark_converts_to_the_declared_error() {
    assert_eq!(converts_errors().unwrap_err().to_string(), "invalid digit found in string");
}

#[main(crate = crate::stand_in)]
async fn hides_its_type() -> impl Display {
    "shown"
}

#[main(crate = crate::stand_in)]
async fn never_returns() -> ! {
    panic!("never")
}

#[core::prelude::v1::test]
fn any_return_type_will_do() {
    assert_eq!(hides_its_type().to_string(), "shown");
    assert!(std::panic::catch_unwind(|| never_returns()).is_err());
}

mod inner {
    /// Visible outside of its module, and not to be dropped unseen.
    #[must_use]
    #[super::main(crate = crate::stand_in)]
    pub(super) async fn visible() -> u32 {
        #![allow(unused_variables)]
        let unused = 1;
        2
    }
}

#[core::prelude::v1::test]
#[deny(unused_must_use)]
fn visibility_and_attributes_stay() {
    assert_eq!(inner::visible(), 2);
}

#[test(crate = crate::stand_in)]
#[should_panic(expected = "as it should")]
async fn should_panic_stays() {
    panic!("as it should");
}

#[test(crate = crate::stand_in)]
async fn a_test_may_return_a_result() -> io::Result<()> {
    let number: u32 = "12".parse().map_err(io::Error::other)?;
    assert_eq!(number, 12);
    Ok(())
}

/// Functions made by another macro, whose pieces arrive in groups without delimiters.
macro_rules! generated {
    ($item:item, $visibility:vis $name:ident, $count:expr, $body:block, $type:ty) => {
        #[main(crate = crate::stand_in)]
        $item

        #[main(crate = crate::stand_in, processors = $count)]
        $visibility async fn $name() -> $type $body
    };
}

generated!(async fn whole() -> u32 { 3 }, pub(crate) pieces, 2 + 3, { 4 }, u32);

#[core::prelude::v1::test]
fn functions_made_by_macros_work() {
    assert_eq!((whole(), pieces()), (3, 4));
    assert_eq!(stand_in::calls(), "ambient built processors=5");
}
