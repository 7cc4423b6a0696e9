// Asks an address with the `fetch` of the language, and passes the answer on. The host lets it through to the origins of
// the HTTP connections that the operator granted, and adds their credentials: this service knows none.
//
//   curl 'http://localhost:8080/invoke/fetch-javascript?url=https://api.example.com/v1/latest'

import { Body } from 'wharf:host/types@0.1.0';

export const handler = {
  async handle(request) {
    const url = request.params.find(([name]) => name === 'url');
    if (!url) {
      throw { code: 'invalid', message: 'the parameter url is missing' };
    }
    const answer = await fetch(url[1], { headers: { accept: 'application/json' } });
    const content = new Uint8Array(await answer.arrayBuffer());
    return { status: answer.status, headers: [], body: new Body(content) };
  },
};
