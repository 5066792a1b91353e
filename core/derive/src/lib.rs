//! `#[derive(Key)]`: canonical bytes of a struct or an enum, for `thalweg_dataflow::Key`.
//!
//! Fields follow one another in the order of declaration; an enum begins with the number of its variant as four
//! little-endian bytes. So the hash of a key depends on the order of fields and variants, and on nothing else: neither
//! on names nor on the compiler. Changing the order moves keys to other key groups, and with them their state.

use proc_macro::TokenStream;
use proc_macro2::TokenStream as Tokens;
use quote::{format_ident, quote};
use syn::{Data, DeriveInput, Error, Fields, Path, parse_macro_input, parse_quote};

/// Makes a type a key. Every field must be one: floating-point numbers are not.
///
/// `#[key(crate = path)]` names the crate that holds the trait when it is not `thalweg`.
#[proc_macro_derive(Key, attributes(key))]
pub fn derive_key(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    expand(input).unwrap_or_else(Error::into_compile_error).into()
}

/// Is the crate that is being compiled one of ours below the facade? Those see the trait where it is defined.
fn is_inside() -> bool {
    let package = std::env::var("CARGO_PKG_NAME").unwrap_or_default();
    matches!(
        package.as_str(),
        "thalweg-dataflow" | "thalweg-api" | "thalweg-runtime" | "thalweg-task" | "thalweg-testkit"
    )
}

fn home(input: &DeriveInput) -> syn::Result<Path> {
    let mut home: Path = if is_inside() { parse_quote!(::thalweg_dataflow) } else { parse_quote!(::thalweg) };
    for attribute in input.attrs.iter().filter(|a| a.path().is_ident("key")) {
        attribute.parse_nested_meta(|meta| {
            if meta.path.is_ident("crate") {
                home = meta.value()?.parse()?;
                Ok(())
            } else {
                Err(meta.error("the only option is `crate = path`"))
            }
        })?;
    }
    Ok(home)
}

fn expand(mut input: DeriveInput) -> syn::Result<Tokens> {
    let home = home(&input)?;
    for parameter in input.generics.type_params_mut() {
        parameter.bounds.push(parse_quote!(#home::Key));
    }
    let (width, word, write) = match &input.data {
        Data::Struct(data) => of_struct(&home, &data.fields),
        Data::Enum(data) => {
            if data.variants.is_empty() {
                return Err(Error::new_spanned(&input.ident, "an enum without variants has no values to hash"));
            }
            of_enum(&home, data)
        }
        Data::Union(_) => return Err(Error::new_spanned(&input.ident, "a union cannot be a key")),
    };
    let name = &input.ident;
    let (imp, ty, wher) = input.generics.split_for_impl();
    Ok(quote! {
        #[automatically_derived]
        impl #imp #home::Key for #name #ty #wher {
            const WIDTH: ::core::option::Option<usize> = #width;
            #[inline(always)]
            fn word(&self) -> u64 { #word }
            fn write(&self, to: &mut ::std::vec::Vec<u8>) { #write }
        }
    })
}

fn of_struct(home: &Path, fields: &Fields) -> (Tokens, Tokens, Tokens) {
    let types: Vec<_> = fields.iter().map(|f| &f.ty).collect();
    let names: Vec<_> = fields
        .iter()
        .enumerate()
        .map(|(i, f)| {
            f.ident.clone().map_or_else(
                || {
                    let i = syn::Index::from(i);
                    quote!(#i)
                },
                |n| quote!(#n),
            )
        })
        .collect();
    let width = quote!(#home::key::width_of(&[#(<#types as #home::Key>::WIDTH),*]));
    let word = quote! {
        let mut _word = 0u64;
        let mut _at = 0usize;
        #(
            _word |= #home::key::shifted(#home::Key::word(&self.#names), _at);
            _at += <#types as #home::Key>::WIDTH.unwrap_or(0);
        )*
        _word
    };
    let write = quote!(#(#home::Key::write(&self.#names, to);)*);
    (width, word, write)
}

fn of_enum(home: &Path, data: &syn::DataEnum) -> (Tokens, Tokens, Tokens) {
    let plain = data.variants.iter().all(|v| v.fields.is_empty());
    let arms = data.variants.iter().enumerate().map(|(number, variant)| {
        let (number, name) = (number as u32, &variant.ident);
        let binds: Vec<_> = (0..variant.fields.len()).map(|i| format_ident!("f{i}")).collect();
        let pattern = match &variant.fields {
            Fields::Unit => quote!(Self::#name),
            Fields::Unnamed(_) => quote!(Self::#name(#(#binds),*)),
            Fields::Named(named) => {
                let names = named.named.iter().map(|f| &f.ident);
                quote!(Self::#name { #(#names: #binds),* })
            }
        };
        (number, pattern, binds)
    });
    let (mut words, mut writes) = (Vec::new(), Vec::new());
    for (number, pattern, binds) in arms {
        words.push(quote!(#pattern => #number as u64,));
        writes.push(quote!(#pattern => {
            #home::Key::write(&#number, to);
            #(#home::Key::write(#binds, to);)*
        }));
    }
    if plain {
        let width = quote!(::core::option::Option::Some(4));
        (width, quote!(match self { #(#words)* }), quote!(match self { #(#writes)* }))
    } else {
        (quote!(::core::option::Option::None), quote!(0), quote!(match self { #(#writes)* }))
    }
}
