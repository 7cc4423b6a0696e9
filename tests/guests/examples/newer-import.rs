//! Imports an interface of a later version of the contract.

wit_bindgen::generate!({
    inline: "
        package test:guest;
        world guest {
            import wharf:host/files@0.9.0;
            export wasi:cli/run@0.2.0;
        }
        package wharf:host@0.9.0 { interface files { ping: func(); } }
        package wasi:cli@0.2.0 { interface run { run: func() -> result; } }
    ",
    generate_all,
});

struct Guest;
export!(Guest);

impl exports::wasi::cli::run::Guest for Guest {
    fn run() -> Result<(), ()> {
        wharf::host::files::ping();
        Ok(())
    }
}
