// Asks an HTTP connection for something, and passes the answer on. The credentials are the connection's: this service
// knows its name alone.
//
//   curl 'http://localhost:8080/invoke/http-javascript?connection=rates&path=/latest'

import { send } from 'wharf:host/http@0.1.0';
import { Body } from 'wharf:host/types@0.1.0';

export const handler = {
  handle(request) {
    const params = new Map(request.params);
    const answer = send(params.get('connection') ?? '', {
      method: 'GET',
      path: params.get('path') ?? '',
      params: [],
      headers: [['accept', 'application/json']],
      body: new Body(new Uint8Array()),
    });
    const type = answer.headers.find(([name]) => name === 'content-type');
    return { status: answer.status, headers: type ? [type] : [], body: answer.body };
  },
};
