import http.server,sys,threading
class H(http.server.BaseHTTPRequestHandler):
    def do_GET(s):
        sys.stderr.write('COOKIE '+str(s.headers.get('Cookie'))[:90]+'\n'); sys.stderr.flush(); s.send_response(200); s.end_headers(); s.wfile.write(b'ok')
    def log_message(s,*a): pass
srv=http.server.HTTPServer(('127.0.0.1',9911),H); threading.Timer(60,srv.shutdown).start(); srv.serve_forever()
