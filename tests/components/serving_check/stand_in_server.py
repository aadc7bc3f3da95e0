"""Stands in for tensorflow_model_server, which the tests do not have: its flags, its REST and its gRPC interface."""

import argparse
import base64
import concurrent.futures
import http.server
import json
import threading
from pathlib import Path

import grpc
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc


class Service(prediction_service_pb2_grpc.PredictionServiceServicer):
    """Answers with the only version in the base path, once that model is loaded."""

    def __init__(self, name: str):
        self.name = name
        self.model = None

    def run(self, signature: str, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {key: value.numpy() for key, value in self.model.signatures[signature](**inputs).items()}

    def Predict(self, request, context):
        inputs = {key: tf.constant(tf.make_ndarray(value)) for key, value in request.inputs.items()}
        response = predict_pb2.PredictResponse()
        if request.model_spec.name != self.name:
            context.abort(grpc.StatusCode.NOT_FOUND, request.model_spec.name)
        try:
            for key, value in self.run(request.model_spec.signature_name, inputs).items():
                response.outputs[key].CopyFrom(tf.make_tensor_proto(value))
        except tf.errors.InvalidArgumentError as error:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        return response

    def predict_rows(self, body: dict) -> dict:
        """Takes the body of a REST request and returns the body of the response."""
        rows = body['instances']
        is_bytes = isinstance(rows[0], dict)
        batch = tf.constant([base64.b64decode(row['b64']) for row in rows]) if is_bytes else tf.constant(rows, tf.uint8)
        (key,) = self.model.signatures[body['signature_name']].structured_input_signature[1]
        response = self.run(body['signature_name'], {key: batch})
        columns = {
            key: [value.decode() for value in column] if column.dtype == object else column.tolist()
            for key, column in response.items()
        }
        return {'predictions': [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]}


def make_handler(service: Service) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def send(self, status: int, response: dict) -> None:
            content = json.dumps(response).encode()
            self.send_response(status)
            self.send_header('Content-Length', str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def do_GET(self):
            state = 'AVAILABLE' if service.model else 'LOADING'
            found = self.path == f'/v1/models/{service.name}'
            self.send(
                200 if found else 404, {'model_version_status': [{'version': '1', 'state': state}]} if found else {}
            )

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers['Content-Length'])))
            try:
                self.send(200, service.predict_rows(body))
            except tf.errors.InvalidArgumentError as error:
                self.send(400, {'error': str(error)})

        def log_message(self, *arguments):
            pass

    return Handler


def main() -> None:
    parser = argparse.ArgumentParser()
    for flag in ('--port', '--rest_api_port'):
        parser.add_argument(flag, type=int, required=True)
    parser.add_argument('--model_name', required=True)
    parser.add_argument('--model_base_path', type=Path, required=True)
    arguments = parser.parse_args()
    service = Service(arguments.model_name)
    rest = http.server.ThreadingHTTPServer(('127.0.0.1', arguments.rest_api_port), make_handler(service))
    threading.Thread(target=rest.serve_forever, daemon=True).start()
    server = grpc.server(concurrent.futures.ThreadPoolExecutor())
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(service, server)
    server.add_insecure_port(f'127.0.0.1:{arguments.port}')
    server.start()
    (version,) = arguments.model_base_path.iterdir()
    service.model = tf.saved_model.load(str(version))
    server.wait_for_termination()


if __name__ == '__main__':
    main()
