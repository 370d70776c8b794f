//! The client that `#[service]` writes: constants for the methods' ids, and a function for each.

use proc_macro2::{Span, TokenStream};
use quote::quote;
use syn::LitInt;

use crate::{
    attributes::{cfgs, deprecated, docs},
    lifetimes,
    method::Method,
    service::Service,
};

/// The client of a service.
pub(crate) fn generate(service: &Service<'_>) -> TokenStream {
    let Service { visibility, item, client, cfgs, methods, .. } = service;
    let about = format!("Calls a [`{item}`] over a connection, which its clones share.");
    let constants = methods.iter().map(constant);
    let infos = methods.iter().map(info);
    let calls = methods.iter().map(call);
    quote! {
        #[doc = #about]
        #(#cfgs)*
        #[derive(Clone)]
        #visibility struct #client(::ringcall::Client);

        #(#cfgs)*
        impl #client {
            #(#constants)*

            /// The methods, with the fingerprints of their messages.
            pub const METHODS: &'static [::ringcall::MethodInfo] = &[#(#infos),*];

            /// Connects to a server that has these methods.
            ///
            /// # Errors
            ///
            /// Where no address answers, or the server has these methods with other layouts.
            pub async fn connect(
                address: impl ::ringcall::ToSocketAddrs,
            ) -> ::core::result::Result<Self, ::ringcall::ConnectError> {
                ::ringcall::Client::connect(address, Self::METHODS).await.map(Self)
            }

            /// Connects as [`connect`](Self::connect) does, with limits other than the default.
            ///
            /// # Errors
            ///
            /// As for [`connect`](Self::connect).
            pub async fn with(
                config: &::ringcall::ClientConfig,
                address: impl ::ringcall::ToSocketAddrs,
            ) -> ::core::result::Result<Self, ::ringcall::ConnectError> {
                ::ringcall::Client::connect_with(config, address, Self::METHODS).await.map(Self)
            }

            /// The connection.
            pub fn client(&self) -> &::ringcall::Client {
                &self.0
            }

            #(#calls)*
        }
    }
}

fn constant(method: &Method) -> TokenStream {
    let Method { constant, id, .. } = method;
    let cfgs = cfgs(&method.attributes);
    let about = format!("The id of `{}` on the wire.", method.wire_name);
    let id = LitInt::new(&format!("{id:#010x}"), Span::call_site());
    quote! {
        #[doc = #about]
        #(#cfgs)*
        pub const #constant: u32 = #id;
    }
}

fn info(method: &Method) -> TokenStream {
    let Method { constant, wire_name, .. } = method;
    let cfgs = cfgs(&method.attributes);
    let request = lifetimes::statics(&method.request);
    let reply = lifetimes::statics(&method.reply);
    quote! {
        #(#cfgs)*
        ::ringcall::MethodInfo {
            id: Self::#constant,
            name: #wire_name,
            request: <#request as ::ringcall::Field>::LAYOUT,
            reply: <#reply as ::ringcall::Field>::LAYOUT,
        }
    }
}

fn call(method: &Method) -> TokenStream {
    let Method { name, constant, attributes, .. } = method;
    let cfgs = cfgs(attributes);
    let deprecated = deprecated(attributes);
    let docs: Vec<_> = docs(attributes).collect();
    let blank = (!docs.is_empty()).then(|| quote!(#[doc = ""]));
    let about = format!(" Calls `{}`.", method.wire_name);
    let request = lifetimes::elided(&method.request);
    let reply = lifetimes::statics(&method.reply);
    let response = quote!(::ringcall::Response<#reply>);
    quote! {
        #(#docs)*
        #blank
        #[doc = #about]
        #(#cfgs)*
        #(#deprecated)*
        #[inline]
        pub fn #name<'call>(
            &'call self,
            request: &'call #request,
        ) -> impl ::core::future::Future<
            Output = ::core::result::Result<#response, ::ringcall::Status>,
        > {
            self.0.call::<#request, #reply>(Self::#constant, request)
        }
    }
}
