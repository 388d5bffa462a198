//! Where strangers' scripts run: Rhai, without anything that reaches out of the script, and with every resource bounded.
//!
//! * CPU: each token that is parsed and each operation that is run asks `checkpoint`, which is a load.
//! * Memory: what one value may hold is Rhai's to bound; the sum is counted by [`memory`].
//! * Stack: the depth of calls, expressions and data is bounded, and the script has a [stack](STACK) on which all of it fits.
//! * Time without CPU: there is nothing that waits. Rhai's `sleep` would hold a worker for as long as the script likes.

use rhai::{
    Dynamic, Engine, EvalAltResult, FLOAT, INT, LexError, OptimizationLevel, ParseError, Position, Scope, Token,
};
use stipend::checkpoint;

use crate::memory;

const MAX_CALLS: usize = 32;
const MAX_EXPRESSION_DEPTH: usize = 64;
const MAX_EXPRESSION_DEPTH_IN_FUNCTIONS: usize = 32;
const MAX_VARIABLES: usize = 256;
const MAX_FUNCTIONS: usize = 256;
const MAX_STRING_BYTES: usize = 256 << 10;
/// Elements of a value, with those of the values in it: so also how deep it nests.
const MAX_ELEMENTS: usize = 1024;

/// What a script may hold at once, its parsed form included.
const MAX_MEMORY: usize = 64 << 20;

/// Arrays and maps a thousand deep, in turns, take 14 MiB of stack to compare and to drop without optimisations. Reserved, not
/// used: only the pages that a script touches are there.
const STACK: usize = 64 << 20;

/// An error message that quotes the script may be as long as the script.
const MAX_MESSAGE_BYTES: usize = 1000;

/// Runs scripts. It keeps nothing of them.
pub(crate) struct Sandbox {
    engine: Engine,
}

/// Why a script has no value.
pub(crate) struct Fault {
    pub(crate) kind: FaultKind,
    pub(crate) message: String,
    pub(crate) position: Position,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum FaultKind {
    Parse,
    Runtime,
    /// It held more than [`MAX_MEMORY`].
    Memory,
    /// `checkpoint` said so: the task is about to be ended.
    Stopped,
}

impl FaultKind {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Parse => "parse_error",
            Self::Runtime => "runtime_error",
            Self::Memory => "memory_limit_exceeded",
            Self::Stopped => "stopped",
        }
    }
}

impl Sandbox {
    pub(crate) fn new() -> Self {
        let mut engine = Engine::new();
        engine
            .set_max_call_levels(MAX_CALLS)
            .set_max_expr_depths(MAX_EXPRESSION_DEPTH, MAX_EXPRESSION_DEPTH_IN_FUNCTIONS)
            .set_max_variables(MAX_VARIABLES)
            .set_max_functions(MAX_FUNCTIONS)
            .set_max_string_size(MAX_STRING_BYTES)
            .set_max_array_size(MAX_ELEMENTS)
            .set_max_map_size(MAX_ELEMENTS)
            // Scripts of different tenants share nothing.
            .set_max_strings_interned(0)
            .set_optimization_level(OptimizationLevel::None)
            // `eval` parses within the script; `curry` makes values whose size Rhai does not count.
            .disable_symbol("eval")
            .disable_symbol("curry")
            .on_print(|_| ())
            .on_debug(|_, _, _| ())
            .on_progress(|_operations| must_stop().then_some(Dynamic::UNIT))
            .register_fn("sleep", |_: INT| no_sleep())
            .register_fn("sleep", |_: FLOAT| no_sleep());
        #[expect(deprecated, reason = "it is marked so for being volatile; nothing else can stop the parser")]
        engine.on_parse_token(|token, _, _| if must_stop() { stop_token() } else { token });
        Self { engine }
    }

    /// Parses and runs a script, to its end or to the first checkpoint that fails. Returns its value as text.
    pub(crate) fn run(&self, script: &str) -> Result<String, Fault> {
        stacker::grow(STACK, || {
            memory::start_counting();
            self.run_here(script)
        })
    }

    fn run_here(&self, script: &str) -> Result<String, Fault> {
        let script = self.engine.compile(script).map_err(|error| parse_fault(&error))?;
        let value: Dynamic =
            self.engine.eval_ast_with_scope(&mut Scope::new(), &script).map_err(|error| runtime_fault(&error))?;
        Ok(value.to_string())
    }
}

fn must_stop() -> bool {
    checkpoint().is_err() || memory::peak() > MAX_MEMORY
}

fn stop_token() -> Token {
    Token::LexError(Box::new(LexError::Runtime("stopped".to_owned())))
}

fn no_sleep() -> Result<(), Box<EvalAltResult>> {
    Err("there is nothing to wait for".into())
}

fn parse_fault(error: &ParseError) -> Fault {
    fault(FaultKind::Parse, error.to_string(), error.position())
}

fn runtime_fault(error: &EvalAltResult) -> Fault {
    // Where it went wrong, not where the function in which it did was called.
    fault(FaultKind::Runtime, error.to_string(), error.unwrap_inner().position())
}

/// Whatever the script says it died of: if it was to stop, that is why.
fn fault(kind: FaultKind, mut message: String, position: Position) -> Fault {
    message.truncate(message.floor_char_boundary(MAX_MESSAGE_BYTES));
    if checkpoint().is_err() {
        Fault { kind: FaultKind::Stopped, message, position }
    } else if memory::peak() > MAX_MEMORY {
        let message = format!("the script held more than {} MiB", MAX_MEMORY >> 20);
        Fault { kind: FaultKind::Memory, message, position }
    } else {
        Fault { kind, message, position }
    }
}
