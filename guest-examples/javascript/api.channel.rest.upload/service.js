// A thin layer between a public address and the connector: takes the name from the query, hands the body on.
//
//   curl --data-binary @report.csv 'http://localhost:8080/invoke/api.channel.rest.upload?file_name=report.csv'
//
// The body is not read here. It goes from the client's connection to Dropbox, however large it is.

import { invoke } from 'wharf:host/services@0.1.0';

const CONNECTOR = 'api.connector.dropbox';

export const handler = {
  handle(request) {
    const fileName = request.params.find(([name]) => name === 'file_name');
    if (!fileName) {
      throw { code: 'invalid', message: 'the parameter file_name is missing: add ?file_name=report.csv to the address' };
    }
    return invoke(CONNECTOR, { ...request, method: 'POST', path: '', params: [fileName], headers: [] });
  },
};
