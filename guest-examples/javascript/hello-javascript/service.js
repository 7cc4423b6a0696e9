// Greets whom the parameter `name` says.

import { Body } from 'wharf:host/types@0.1.0';

export const handler = {
  handle(request) {
    const [, name] = request.params.find(([key]) => key === 'name') ?? ['name', 'world'];
    return {
      status: 200,
      headers: [['content-type', 'text/plain; charset=utf-8']],
      body: new Body(new TextEncoder().encode(`Hello, ${name}, from JavaScript\n`)),
    };
  },
};
