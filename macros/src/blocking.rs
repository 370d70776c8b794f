//! The blocking client that `#[service]` writes: a function for each method without items.

use proc_macro2::TokenStream;
use quote::{format_ident, quote};
use syn::ext::IdentExt;

use crate::{
    attributes::{cfgs, deprecated, docs},
    lifetimes,
    method::{Kind, Method},
    service::Service,
};

/// The blocking client of a service. Its constants are those of the other client.
pub(crate) fn generate(service: &Service<'_>) -> TokenStream {
    let Service { visibility, item, client, cfgs, methods, .. } = service;
    let blocking = format_ident!("{}BlockingClient", item.unraw());
    let about = format!(
        "Calls a [`{item}`] on a blocking socket, without an executor: for scripts, tests and tools."
    );
    let calls = methods.iter().filter_map(|method| call(service, method));
    quote! {
        #[doc = #about]
        ///
        /// It has the methods without streams. Each gives a call that is not made yet.
        #(#cfgs)*
        #[allow(dead_code)]
        #visibility struct #blocking(::ringcall::blocking::Client);

        #(#cfgs)*
        #[allow(dead_code)]
        impl #blocking {
            /// Connects to a server that has the service's methods.
            ///
            /// # Errors
            ///
            /// Where no address answers, or the server has these methods with other layouts.
            pub fn connect(
                address: impl ::ringcall::ToSocketAddrs,
            ) -> ::core::result::Result<Self, ::ringcall::ConnectError> {
                ::ringcall::blocking::Client::connect(address, #client::METHODS).map(Self)
            }

            /// Connects as [`connect`](Self::connect) does, with limits other than the default.
            ///
            /// # Errors
            ///
            /// As for [`connect`](Self::connect).
            pub fn with(
                config: &::ringcall::blocking::ClientConfig,
                address: impl ::ringcall::ToSocketAddrs,
            ) -> ::core::result::Result<Self, ::ringcall::ConnectError> {
                ::ringcall::blocking::Client::connect_with(config, address, #client::METHODS)
                    .map(Self)
            }

            /// Calls over a connection that is there already.
            pub fn on(client: ::ringcall::blocking::Client) -> Self {
                Self(client)
            }

            /// The connection: to finish calls that were started, for example.
            pub fn client(&mut self) -> &mut ::ringcall::blocking::Client {
                &mut self.0
            }

            #(#calls)*
        }
    }
}

/// The function that calls a method; none where items travel with its calls.
fn call(service: &Service<'_>, method: &Method) -> Option<TokenStream> {
    let (client, name) = (&service.client, &method.name);
    let request = lifetimes::of_call(&method.request);
    let (call, prepare, types) = match &method.kind {
        Kind::OneWay => ("OneWay", "prepare_one_way", quote!(#request)),
        Kind::Answered(answer) if answer.streams.is_empty() => {
            let reply = lifetimes::statics(&answer.reply);
            let error = lifetimes::statics(&answer.error);
            ("Call", "prepare", quote!(#request, #reply, #error))
        }
        Kind::Answered(_) => return None,
    };
    let (call, prepare) = (format_ident!("{call}"), format_ident!("{prepare}"));
    let info = format_ident!("__INFO_{}", method.constant);
    let keyed = crate::client::keyed(method);
    let cfgs = cfgs(&method.attributes);
    let deprecated = deprecated(&method.attributes);
    let docs: Vec<_> = docs(&method.attributes).collect();
    let blank = (!docs.is_empty()).then(|| quote!(#[doc = ""]));
    let about = format!(" Calls `{}`.", method.wire_name);
    Some(quote! {
        #(#docs)*
        #blank
        #[doc = #about]
        #(#cfgs)*
        #(#deprecated)*
        #[inline]
        pub fn #name<'call>(
            &'call mut self,
            request: &'call #request,
        ) -> ::ringcall::blocking::#call<'call, #types> {
            self.0.#prepare::<#types>(&#client::#info, request) #keyed
        }
    })
}

#[cfg(test)]
mod tests {
    use syn::Visibility;

    use super::*;
    use crate::options::RpcOptions;

    /// What is written for a service of these methods, without spaces.
    fn expanded(methods: Vec<(RpcOptions, TokenStream)>) -> String {
        let item = format_ident!("Kv");
        let methods = methods.into_iter().map(|(options, function)| {
            let function = syn::parse2(function).unwrap();
            Method::new(&function, &options, "Kv").unwrap()
        });
        let service = Service {
            visibility: &Visibility::Inherited,
            item: &item,
            server: format_ident!("KvServer"),
            client: format_ident!("KvClient"),
            cfgs: Vec::new(),
            name: "Kv".to_owned(),
            methods: methods.collect(),
        };
        text(generate(&service))
    }

    fn text(tokens: TokenStream) -> String {
        tokens.to_string().replace(' ', "")
    }

    #[test]
    fn a_call_borrows_the_client_and_its_request_and_owns_its_outcome() {
        let expanded = expanded(vec![(
            RpcOptions::default(),
            quote! {
                async fn echo<'a>(
                    &self,
                    cx: &Context,
                    request: Request<'a, Blob<'a>>,
                ) -> Result<Blob<'a>, Denied<'a>>;
            },
        )]);
        let types = quote!(Blob<'call>, Blob<'static>, Denied<'static>);
        let function = text(quote! {
            pub fn echo<'call>(
                &'call mut self,
                request: &'call Blob<'call>,
            ) -> ::ringcall::blocking::Call<'call, #types> {
                self.0.prepare::<#types>(&KvClient::__INFO_ECHO, request)
            }
        });
        assert!(expanded.contains(&function), "{expanded}");
    }

    #[test]
    fn a_one_way_call_has_no_outcome() {
        let options = RpcOptions { oneway: true, ..RpcOptions::default() };
        let note = quote! {
            async fn note(&self, cx: &Context, request: Request<'_, Line>);
        };
        let function = text(quote! {
            -> ::ringcall::blocking::OneWay<'call, Line> {
                self.0.prepare_one_way::<Line>(&KvClient::__INFO_NOTE, request)
            }
        });
        let expanded = expanded(vec![(options, note)]);
        assert!(expanded.contains(&function), "{expanded}");
    }

    #[test]
    fn methods_with_items_are_left_out() {
        for (name, streams) in [
            ("scan", quote!(rows: Sink<'_, Row>)),
            ("load", quote!(rows: Source<Row>)),
            ("swap", quote!(rows: Source<Row>, back: Sink<'_, Row>)),
        ] {
            let name = format_ident!("{name}");
            let expanded = expanded(vec![
                (
                    RpcOptions::default(),
                    quote! {
                        async fn #name(&self, cx: &Context, q: Request<'_, Q>, #streams)
                            -> Result<R, E>;
                    },
                ),
                (
                    RpcOptions::default(),
                    quote! {
                        async fn get(&self, cx: &Context, q: Request<'_, Q>) -> Result<R, E>;
                    },
                ),
            ]);
            assert!(!expanded.contains(&format!("pubfn{name}<")), "{expanded}");
            assert!(expanded.contains("pubfnget<"), "{expanded}");
        }
    }

    #[test]
    fn what_is_said_of_a_method_is_said_of_its_call() {
        let expanded = expanded(vec![(
            RpcOptions::default(),
            quote! {
                #[doc = " Reads a value."]
                #[cfg(unix)]
                #[deprecated]
                async fn get(&self, cx: &Context, q: Request<'_, Q>) -> Result<R, E>;
            },
        )]);
        let attributes = text(quote! {
            #[doc = " Reads a value."]
            #[doc = ""]
            #[doc = " Calls `Kv.get`."]
            #[cfg(unix)]
            #[deprecated]
            #[inline]
            pub fn get<'call>
        });
        assert!(expanded.contains(&attributes), "{expanded}");
    }
}
