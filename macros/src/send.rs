//! The client for other executors that `#[service]` writes: a function for each method without
//! items.

use proc_macro2::TokenStream;
use quote::{format_ident, quote};
use syn::ext::IdentExt;

use crate::{
    attributes::{cfgs, deprecated, docs},
    lifetimes,
    method::{Kind, Method},
    service::Service,
};

/// The send client of a service. Its constants are those of the other client.
pub(crate) fn generate(service: &Service<'_>) -> TokenStream {
    let Service { visibility, item, client, cfgs, methods, .. } = service;
    let send = format_ident!("{}SendClient", item.unraw());
    let about = format!(
        "Calls a [`{item}`] from any thread and any executor, through a `ringcall::Handle`."
    );
    let calls = methods.iter().filter_map(|method| call(service, method));
    quote! {
        #[doc = #about]
        ///
        /// It has the methods without streams. Clones share the connection.
        #(#cfgs)*
        #[allow(dead_code)]
        #[derive(Clone)]
        #visibility struct #send(::ringcall::handle::Client);

        #(#cfgs)*
        #[allow(dead_code)]
        impl #send {
            /// Connects to a server that has the service's methods.
            ///
            /// # Errors
            ///
            /// Where no address answers, or the server has these methods with other layouts.
            pub async fn connect(
                handle: &::ringcall::Handle,
                address: impl ::ringcall::ToSocketAddrs,
            ) -> ::core::result::Result<Self, ::ringcall::ConnectError> {
                ::ringcall::handle::Client::connect(handle, address, #client::METHODS)
                    .await
                    .map(Self)
            }

            /// Connects as [`connect`](Self::connect) does, with limits other than the default.
            ///
            /// # Errors
            ///
            /// As for [`connect`](Self::connect).
            pub async fn with(
                handle: &::ringcall::Handle,
                config: &::ringcall::handle::ClientConfig,
                address: impl ::ringcall::ToSocketAddrs,
            ) -> ::core::result::Result<Self, ::ringcall::ConnectError> {
                ::ringcall::handle::Client::connect_with(handle, config, address, #client::METHODS)
                    .await
                    .map(Self)
            }

            /// Calls over a connection that is there already.
            pub fn on(client: ::ringcall::handle::Client) -> Self {
                Self(client)
            }

            /// The connection.
            pub fn client(&self) -> &::ringcall::handle::Client {
                &self.0
            }

            #(#calls)*
        }
    }
}

/// The function that calls a method; none where items travel with its calls.
fn call(service: &Service<'_>, method: &Method) -> Option<TokenStream> {
    let (client, name) = (&service.client, &method.name);
    let request = lifetimes::of_call(&method.request);
    let (future, start) = match &method.kind {
        Kind::OneWay => (quote!(OneWay), quote!(one_way::<#request>)),
        Kind::Answered(answer) if answer.streams.is_empty() => {
            let reply = lifetimes::statics(&answer.reply);
            let error = lifetimes::statics(&answer.error);
            (quote!(Call<#reply, #error>), quote!(call::<#request, #reply, #error>))
        }
        Kind::Answered(_) => return None,
    };
    let info = format_ident!("__INFO_{}", method.constant);
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
            &self,
            request: &'call #request,
        ) -> ::ringcall::handle::#future {
            self.0.#start(&#client::#info, request)
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
    fn a_call_borrows_nothing() {
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
        let function = text(quote! {
            pub fn echo<'call>(
                &self,
                request: &'call Blob<'call>,
            ) -> ::ringcall::handle::Call<Blob<'static>, Denied<'static>> {
                self.0.call::<Blob<'call>, Blob<'static>, Denied<'static>>(
                    &KvClient::__INFO_ECHO,
                    request
                )
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
            -> ::ringcall::handle::OneWay {
                self.0.one_way::<Line>(&KvClient::__INFO_NOTE, request)
            }
        });
        let expanded = expanded(vec![(options, note)]);
        assert!(expanded.contains(&function), "{expanded}");
    }

    #[test]
    fn methods_with_items_are_left_out() {
        let scan = quote! {
            async fn scan(&self, cx: &Context, q: Request<'_, Q>, rows: Sink<'_, Row>)
                -> Result<R, E>;
        };
        let expanded = expanded(vec![(RpcOptions::default(), scan)]);
        assert!(!expanded.contains("pubfnscan<"), "{expanded}");
    }
}
